/* Read a case, recompute a linear (without bias) or rms_norm step of ../INDEX.json, compare. Little-endian machines.
   cc -o read read.c -lm; ./read CHECKPOINT/model.safetensors ../cases/CASE linear GIVEN WEIGHT EXPECTED */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef unsigned long long u64;
typedef struct { float *values; u64 count, last; } Tensor; /* last: the last dimension of its shape */
static void stop(const char *what, const char *why) { fprintf(stderr, "read: %s %s\n", what, why), exit(2); }

static char *contents(const char *path, u64 *size) {
  FILE *f = fopen(path, "rb");
  if (!f || fseek(f, 0, SEEK_END)) stop(path, "cannot be read");
  char *raw = calloc(1, (*size = (u64)ftell(f)) + 1); /* a 0 at the end: JSON is then a string */
  if (rewind(f), !raw || fread(raw, 1, *size, f) != *size) stop(path, "cannot be read");
  return fclose(f), raw;
}

static char *after(char *json, const char *key, const char *path) {
  char quoted[300], *at = (snprintf(quoted, sizeof quoted, "\"%s\":", key), strstr(json, quoted));
  return at ? at + strlen(quoted) : (stop(path, "has no entry for a tensor of this name"), NULL);
}

static Tensor read_tensor(const char *path, const char *name) {
  u64 size, header = 0, first, end;
  char *raw = contents(path, &size);
  if (size < 8 || (memcpy(&header, raw, 8), header > size - 8)) stop(path, "is cut short within its header");
  char *json = memcpy(calloc(1, header + 1), raw + 8, header), *entry = after(json, name, path);
  size_t width = strncmp(after(entry, "dtype", path), "\"BF16\"", 6) ? 4 : 2;
  char *shape = after(entry, "shape", path), *offsets = after(entry, "data_offsets", path);
  if (sscanf(offsets, "[%llu,%llu]", &first, &end) != 2 || first > end || end > size - 8 - header)
    stop(path, "is cut short within its data");
  Tensor t = {calloc((end - first) / width + 1, 4), (end - first) / width, 0};
  for (; *shape == '[' || *shape == ','; shape += strcspn(shape, ",]")) t.last = strtoull(++shape, NULL, 10);
  if (!t.count || !t.last || t.count % t.last) stop(path, "has a shape that its data do not fill");
  for (u64 i = 0; i < t.count; i++) /* a bfloat16 is the upper half of a float32 */
    memcpy((char *)(t.values + i) + 4 - width, raw + 8 + header + first + i * width, width);
  return free(json), free(raw), t;
}

int main(int argc, char **argv) {
  if (argc != 7) stop("six arguments are needed:", "WEIGHTS CASE linear|rms_norm GIVEN WEIGHT EXPECTED");
  char file[4096], json[4096];
  snprintf(file, 4096, "%s/expected.safetensors", argv[2]), snprintf(json, 4096, "%s/case.json", argv[2]);
  Tensor x = read_tensor(file, argv[4]), w = read_tensor(argv[1], argv[5]), y = read_tensor(file, argv[6]);
  u64 norm = !strcmp(argv[3], "rms_norm"), n = w.last, outputs = norm ? n : w.count / n, size;
  if (x.count % n || y.count != x.count / n * outputs) stop(argv[6], "has another shape than these give");
  char *text = contents(json, &size), *entry = after(text, argv[6], json);
  double atol = strtod(after(entry, "atol", json), NULL), worst = 0, error;
  for (u64 i = 0; i < y.count; i++) {
    const float *row = x.values + i / outputs * n, *weight = norm ? row : w.values + i % outputs * n;
    double sum = 0;
    for (u64 k = 0; k < n; k++) sum += (double)row[k] * weight[k];
    if (norm) sum = row[i % n] / sqrt(sum / (double)n + 1e-6) * w.values[i % n];
    if (error = fabs(sum - y.values[i]), error > worst || isnan(error)) worst = error;
  }
  printf("%s %s: %.1e, allowed %.1e\n", argv[3], argv[6], worst, atol);
  return free(text), free(x.values), free(w.values), free(y.values), !(worst <= atol);
}
