// A port in plain JavaScript that reads a fixture and computes parts of it: no packages, a starting point for a port.
//
//   qwen3tts-np fixtures export MODEL request.json FIXTURE --tensor-format raw      (or npy)
//   node read.mjs FIXTURE OUT [SETTINGS]
//   qwen3tts-np fixtures compare FIXTURE OUT
//
// A clip's mel spectrogram, by the numbers of golden/README.md (SETTINGS, a JSON object, changes them); the words that the
// generator begins with for the request's seed; of a step with padded caches, what is written into them and attention.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";

const TYPES = { float32: Float32Array, int32: Int32Array, int16: Int16Array };
const NPY = { "<f4": Float32Array, "<i4": Int32Array, "<i2": Int16Array };

function readNpy(path) {
  const file = readFileSync(path), start = 10 + file.readUInt16LE(8);
  const type = NPY[/'descr': '([^']*)'/.exec(file.toString("latin1", 10, start))[1]];
  return new type(file.buffer.slice(file.byteOffset + start, file.byteOffset + file.length));
}

function writeNpy(path, values, shape) {
  const dims = shape.join(", ") + (shape.length === 1 ? "," : "");
  const header = `{'descr': '<f4', 'fortran_order': False, 'shape': (${dims}), }`;
  const head = Buffer.concat([Buffer.from("\x93NUMPY\x01\x00", "latin1"), Buffer.alloc(2), Buffer.from(header)]);
  const padded = Buffer.concat([head, Buffer.from(" ".repeat(63 - (head.length % 64)) + "\n")]);
  padded.writeUInt16LE(padded.length - 10, 8);
  writeFileSync(path, Buffer.concat([padded, Buffer.from(Float32Array.from(values).buffer)]));
}

// The tensors of a part, "inputs" or "expected", which is a folder of .npy files or one file with offsets in case.json.
function reader(folder, manifest, part) {
  const table = manifest[part === "inputs" ? "inputs" : "tensors"];
  const file = manifest.storage === "raw" ? readFileSync(`${folder}/${part}.bin`) : null;
  return (name) => {
    const { shape, dtype, offset, bytes } = table[name];
    const data = file
      ? new TYPES[dtype](file.buffer.slice(file.byteOffset + offset, file.byteOffset + offset + bytes))
      : readNpy(`${folder}/${part}/${name}.npy`);
    return { shape, data };
  };
}

const NUMBERS = { samples: 1, pad: 384, window: 1024, hop: 256, symmetric: 0, rounded: 1, added: 1e-9, exponent: 0.5, htk: 0, area: 1,
  bands: 128, top: 12000, rate: 24000, floor: 1e-5 };

function logMel(clip, settings) {
  const s = { ...NUMBERS, ...settings }, n = s.window, bins = n / 2 + 1, count = Math.floor((clip.length + 2 * s.pad - n) / s.hop) + 1;
  const at = (i) => s.samples * clip[i < 0 ? -i : i >= clip.length ? 2 * clip.length - 2 - i : i];
  const kind = s.rounded ? Float32Array : Float64Array;
  const hann = kind.from({ length: n }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / (n - s.symmetric)));
  const cos = Array.from({ length: n }, (_, i) => Math.cos((2 * Math.PI * i) / n));
  const filters = triangles(s, bins), found = new Float64Array(count * s.bands);
  for (let t = 0; t < count; t++) {
    const frame = Array.from(hann, (h, i) => h * at(t * s.hop + i - s.pad)), spectrum = [];
    for (let k = 0; k < bins; k++) {
      let real = 0, imaginary = 0;
      for (let i = 0; i < n; i++) {
        real += frame[i] * cos[(i * k) % n];
        imaginary += frame[i] * cos[(i * k + n / 4) % n];
      }
      spectrum.push((real * real + imaginary * imaginary + s.added) ** s.exponent);
    }
    for (let m = 0; m < s.bands; m++) {
      const sum = filters[m].reduce((total, weight, k) => total + weight * spectrum[k], 0);
      found[t * s.bands + m] = Math.log(Math.max(sum, s.floor));
    }
  }
  return { shape: [count, s.bands], data: found };
}

function triangles(s, bins) {
  const mel = (hz) => (s.htk ? 2595 * Math.log10(1 + hz / 700)
    : hz < 1000 ? hz / (200 / 3) : 15 + (27 * Math.log(hz / 1000)) / Math.log(6.4));
  const hertz = (m) => (s.htk ? 700 * (10 ** (m / 2595) - 1)
    : m < 15 ? (m * 200) / 3 : 1000 * Math.exp(((m - 15) * Math.log(6.4)) / 27));
  const corner = (i) => hertz((mel(s.top) * i) / (s.bands + 1));
  return Array.from({ length: s.bands }, (_, m) => {
    const [start, peak, end] = [corner(m), corner(m + 1), corner(m + 2)], height = s.area ? 2 / (end - start) : 1;
    return Array.from({ length: bins }, (_, k) => {
      const hz = (k * s.rate) / s.window;
      return height * Math.max(0, Math.min((hz - start) / (peak - start), (end - hz) / (end - peak)));
    });
  });
}

// The first words of MT19937 seeded with the low 32 bits of a seed, which is text in case.json.
function firstWords(seed, count) {
  const state = new Uint32Array(624);
  state[0] = Number(BigInt.asUintN(32, BigInt(seed)));
  for (let i = 1; i < 624; i++) state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
  for (let i = 0; i < 624; i++) {
    const y = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
    state[i] = state[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
  }
  return Array.from(state.subarray(0, count), (y) => {
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  });
}

// Layer i of a step with padded caches: its keys or values at the rows that write_index names.
function written(input, expected, kind, i) {
  const past = input(`past_${kind}.${i}`), rows = input("write_index").data, size = past.shape[1] * past.shape[2];
  const made = expected(`talker.model.layers.${i}.self_attn.${kind === "key" ? "k_rot" : "v_proj"}@0`).data;
  const data = Float32Array.from(past.data);
  rows.forEach((row, t) => data.set(made.subarray(t * size, (t + 1) * size), row * size));
  return { shape: past.shape, data };
}

// Attention over the rows of the caches that mask [T, S] shows to each position.
function attention(q, keys, values, mask) {
  const [steps, heads, width] = q.shape, [places, groups] = keys.shape, found = new Float64Array(q.data.length);
  const row = (x, t, head, of) => x.data.subarray((t * of + head) * width, (t * of + head + 1) * width);
  for (let t = 0; t < steps; t++) for (let h = 0; h < heads; h++) {
    const g = Math.floor((h * groups) / heads), query = row(q, t, h, heads);
    const dot = (s) => row(keys, s, g, groups).reduce((sum, k, d) => sum + k * query[d], 0) / Math.sqrt(width);
    const scores = Array.from({ length: places }, (_, s) => (mask.data[t * places + s] ? dot(s) : -Infinity));
    const top = Math.max(...scores), exps = scores.map((x) => Math.exp(x - top)), total = exps.reduce((a, b) => a + b, 0);
    exps.forEach((e, s) => row(values, s, g, groups).forEach((v, d) => {
      found[(t * heads + h) * width + d] += (e / total) * v;
    }));
  }
  return { shape: [steps, heads * width], data: found };
}

const [folder, out, settings] = process.argv.slice(2);
const manifest = JSON.parse(readFileSync(`${folder}/case.json`, "utf8"));
const input = reader(folder, manifest, "inputs"), expected = reader(folder, manifest, "expected"), found = {};
if (manifest.tensors["speaker_encoder.mel@0"])
  found["speaker_encoder.mel@0"] = logMel(input("audio.0").data, JSON.parse(settings ?? "{}"));
for (let i = 0; manifest.inputs.mask && manifest.inputs[`past_key.${i}`]; i++) {
  const [keys, values] = ["key", "value"].map((kind) => written(input, expected, kind, i));
  const name = `talker.model.layers.${i}.self_attn`, q = expected(`${name}.q_rot@0`);
  Object.assign(found, { [`present_key.${i}`]: keys, [`present_value.${i}`]: values });
  found[`${name}.context@0`] = attention(q, keys, values, input("mask"));
}
mkdirSync(out, { recursive: true });
for (const [name, { data, shape }] of Object.entries(found)) writeNpy(`${out}/${name}.npy`, data, shape);
const words = manifest.generator ? firstWords(manifest.generator.seed, 4).join(" ") : "none";
console.log(`${manifest.checkpoint.weights_format}; ${Object.keys(found).length} tensors; first words: ${words}`);
