"""Run the graphs of talker and code predictor on what a golden case fed them, and keep every tensor that the case has.

    python tensors_onnx.py GRAPHS golden/cases/activations_custom_voice theirs.safetensors
    qwen3tts-np fixtures compare golden/cases/activations_custom_voice theirs.safetensors

Values in the graphs have the official names, so each one that the case has becomes an output of the graph.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import safetensors.numpy

PREDICTOR = "talker.code_predictor"


class Observed:
    """A graph with further outputs: every value of its whose name is in ``names``."""

    def __init__(self, folder, names):
        model = onnx.load(folder / "model.onnx", load_external_data=False)
        have = {x.name for x in [*model.graph.output, *model.graph.input]}
        made = [x for node in model.graph.node for x in node.output if x in names and x not in have]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
        path = folder / "observed.onnx"  # beside the arrays that it refers to
        onnx.save(model, path)
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        path.unlink()
        self.begin()

    def begin(self):
        inputs, self.position = self.session.get_inputs(), 0
        sizes = {x.name: [n if isinstance(n, int) else 0 for n in x.shape] for x in inputs}
        self.state = {name: np.zeros(size, np.float32) for name, size in sizes.items() if name.endswith(".past")}
        self.given = [x.name for x in inputs if x.name not in self.state]

    def __call__(self, x, *more):
        positions = np.arange(self.position, self.position + len(x))
        inputs = {**dict(zip(self.given, (x, positions, *more), strict=True)), **self.state}
        outputs = [x.name for x in self.session.get_outputs()]
        found = dict(zip(outputs, self.session.run(outputs, inputs), strict=True))
        self.state = {name: found[name[:-4] + "present"] for name in self.state}
        self.position += len(x)
        return {name: x for name, x in found.items() if not name.endswith(".present")}


def main():
    folder, case, output = map(Path, sys.argv[1:])
    manifest = json.loads((case / "case.json").read_text())["tensors"]
    names = {name.rpartition("@")[0] for name in manifest}
    stored, found = safetensors.numpy.load_file(case / "expected.safetensors"), {}

    def known(name):
        return stored.get(manifest.get(name, {}).get("same_as", name))

    talker, calls = Observed(folder / "talker", names), 0
    while (x := known(f"talker.model.inputs_embeds@{calls}")) is not None:
        found |= {f"{name}@{calls}": value for name, value in talker(x).items()}
        calls += 1

    predictor, calls = Observed(folder / "code_predictor", names), 0
    projected = any(name.startswith(f"{PREDICTOR}.small_to_mtp_projection") for name in names)
    first = f"{PREDICTOR}.small_to_mtp_projection.input" if projected else f"{PREDICTOR}.model.inputs_embeds"
    heads = len({name for name in names if name.startswith(f"{PREDICTOR}.lm_head.")})
    while known(f"{first}@{calls}") is not None:
        predictor.begin()
        frame = calls // heads
        for head in range(heads):
            later = f"{PREDICTOR}.model.codec_embedding.{head - 1}@{frame}"
            values = predictor(known(later if head else f"{first}@{calls}"), np.array([head]))
            found[f"{PREDICTOR}.lm_head.{head}@{frame}"] = values.pop(f"{PREDICTOR}.lm_head")
            found |= {f"{name}@{calls}": value for name, value in values.items()}
            calls += 1
    kept = {name: np.ascontiguousarray(value) for name, value in found.items() if name in manifest}
    safetensors.numpy.save_file(kept, output)
    print(f"{len(kept)} of {len(manifest)} tensors")


if __name__ == "__main__":
    main()
