"""What a weight format of the graphs costs: the same codes read by graphs in ONNX Runtime and by this package.

    python benchmarks/graph_fidelity.py                          synthetic 0.6B: 24 frames, int8 and int4
    python benchmarks/graph_fidelity.py --model MODEL --frames 100

Everybody is fed the same codes (teacher forcing), those that float32 weights choose; the graphs by the runner of
``golden/runners``, text and embeddings included. Compared are the logits of each choice: how often the best code is the
same, the divergence (nats), and the error of the layers. "float64" is our arithmetic of that format with sums in
float64: what lies between it and ours is the order and the rounding of sums alone. Needs the extra ``onnx`` and
onnxruntime.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import tokenizers
from machine import synthetic_model
from runners import PIECES, speak_onnx
from tensors_onnx import PREDICTOR, Observed  # runners.py has put its folder on the path

from qwen3tts_np import Qwen3TTSModel
from qwen3tts_np.checkpoint.json_file import read_json
from qwen3tts_np.checkpoint.safetensors import Checkpoint
from qwen3tts_np.compiled.engine import Engine
from qwen3tts_np.compiled.frame_loop import FrameLoop
from qwen3tts_np.config import ModelConfig, TalkerConfig
from qwen3tts_np.export.onnx_export import export_onnx
from qwen3tts_np.ops import Array, Ints
from qwen3tts_np.parity.fidelity import TEXT, Fidelity, any_voice, compared, own_codes, read_codes
from qwen3tts_np.parity.in_format import InFormat
from qwen3tts_np.report.tables import Table, as_markdown

Trace = dict[str, Array]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a custom-voice checkpoint (default: a synthetic one)")
    parser.add_argument("--like", default="0.6b", help="size of the synthetic one (%(default)s)")
    parser.add_argument(
        "--graphs", type=Path, metavar="DIR", help="graphs of it, a folder a format; made where missing"
    )
    parser.add_argument("--formats", nargs="+", default=["int8", "int4"], help="(%(default)s)")
    parser.add_argument("--frames", type=int, default=24)
    args = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if args.model is None:
            args.model = synthetic_model(args.like, folder, "custom_voice")
        print(as_markdown(Table("", HEADERS, "llrrrr", list(measure(args, args.graphs or folder / "graphs")))))


HEADERS = ("of", "to", "best code is the same", "divergence: talker", "code predictor", "last layers' error")


def measure(args: argparse.Namespace, graphs: Path) -> Iterator[list[str]]:
    """The rows of the report."""
    model = Qwen3TTSModel.from_pretrained(args.model, backend="reference")
    request = model.prepare(TEXT, any_voice(model), streaming=False, seed=0, max_new_tokens=args.frames + 1)
    config, codes = model.config, own_codes(model, request)
    exact = read_codes(model.frame_loop, config, request, codes)
    speaker = model.get_supported_speakers()[0]
    del model
    for form in args.formats:
        if not (graphs / form).exists():
            list(export_onnx(args.model, graphs / form, form, PIECES))

        def ours(dtype: type[np.floating], form: str = form) -> Trace:
            engine = Engine.choose("reference", np.dtype(dtype))
            loop = FrameLoop(engine, config, InFormat(Checkpoint.open(args.model), form))
            return read_codes(loop, config, request, codes)

        found = {
            f"this package, {form}": ours(np.float32),
            f"this package, {form}, float64": ours(np.float64),
            f"graphs, {form}": read_by_graphs(graphs / form, config.talker_config, speaker, codes),
        }
        yield from compared_in_pairs({"this package, float32": exact} | found, config, codes)


def compared_in_pairs(found: dict[str, Trace], config: ModelConfig, codes: Ints) -> Iterator[list[str]]:
    """Each against float32, and everybody against this package in the same format."""
    (base, exact), (own, same), *others = found.items()
    for name, trace in (own, same), *others:
        yield row(name, base, compared("float32", config, codes, exact, trace))
    for name, trace in others:
        yield row(name, own, compared("float32", config, codes, same, trace))


def row(of: str, to: str, found: Fidelity) -> list[str]:
    hidden = found.hidden
    last = [[error for name, error in hidden.items() if name.startswith(f"{part}.model.")][-1]
            for part in ("talker", PREDICTOR)]  # fmt: skip
    divergences = [f"{part.divergence:.2g}" for part in (found.talker, found.code_predictor)]
    return [of, to, f"{found.top1:.1%}", *divergences, " and ".join(f"{error:.2%}" for error in last)]


# --- graphs that are told what to choose ---


class Watched:
    """A graph of the runner, of which each call is kept."""

    def __init__(self, folder: Path, watched: Sequence[str], answered: Sequence[str]) -> None:
        self._graph, self._answered = Observed(folder, {*watched, *answered}), answered
        self.calls: list[Trace] = []
        self.begin = self._graph.begin

    def __call__(self, x: Array, positions: Ints, *more: Ints) -> list[Array]:
        self.calls.append(self._graph(x, *more))
        return [self.calls[-1][name] for name in self._answered]


def read_by_graphs(folder: Path, c: TalkerConfig, speaker: str, codes: Ints) -> Trace:
    """Logits and layers of the graphs, which read ``codes``, under the names that ``read_codes`` has."""
    raw = read_json(folder / "config.json")
    talker, predictor = watched_graphs(folder, c)
    others = {name: speak_onnx.Graph(folder / name, 0) for name in ("text", "frame_embedding")}
    encode = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).encode
    given = iter([*codes.ravel().tolist(), 0])
    speak_onnx.choose = lambda *_: next(given)
    voice = {
        "speaker": speaker,
        "language": "auto",
        "instruct": "",
        "ref_audio": "",
        "ref_text": "",
        "streaming": False,
    }
    request = {**read_json(folder / "generation_config.json"), **voice, "text": TEXT, "seed": 0}
    request["max_new_tokens"] = len(codes) + 1
    graphs = {**others, "talker": talker, "code_predictor": predictor}
    speak_onnx.speak(graphs.__getitem__, raw, request, lambda text: encode(text, add_special_tokens=False).ids)
    found = {f"{name}@{t}": value for t, call in enumerate(talker.calls) for name, value in call.items()}
    heads = codes.shape[1] - 1
    for n, call in enumerate(predictor.calls):
        found[f"{PREDICTOR}.lm_head.{n % heads}@{n // heads}"] = call.pop(f"{PREDICTOR}.lm_head")
        found |= {f"{name}@{n}": value for name, value in call.items()}
    return found


def watched_graphs(folder: Path, c: TalkerConfig) -> tuple[Watched, Watched]:
    layers = [f"talker.model.layers.{i}" for i in range(c.num_hidden_layers)]
    small = [f"{PREDICTOR}.model.layers.{i}" for i in range(c.code_predictor_config.num_hidden_layers)]
    talker = Watched(folder / "talker", layers, ["talker.model.norm", "talker.codec_head"])
    return talker, Watched(folder / "code_predictor", small, [f"{PREDICTOR}.lm_head"])


if __name__ == "__main__":
    main()
