"""Record an adapter that the PEFT library writes, and what the official model computes with it: cases/adapter_peft.

    .venv-official/bin/python golden/record_peft.py            with peft beside the official package (pip install peft)
    .venv-official/bin/python golden/record_peft.py --check    what PEFT writes now, and what it reads of this package

``--python P`` runs this package (default: the one that runs this), ``--checkpoints DIR`` as in record.py.

The adapter adds to every projection of talker and code predictor, and replaces the row of a voice. Losses and logits of
given codes, a row for each and one for the end, are computed with the additions beside the weights, in float64; greedy
codes with the additions merged by PEFT and rounded to the type of the checkpoint, as ``say --adapter`` speaks.

Trap: PEFT asks for the table that trainable tokens belong to, by a method that the official class does not have.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import sketch
import store
import torch
from cases import Checkpoint
from official import Choices, float64, load, versions
from peft import LoraConfig, PeftModel, get_peft_model
from record import REPOSITORY, Smith
from record_training import Lesson, losses_of
from safetensors.numpy import load_file
from store import CASES, Json

MADE_BY = "golden/record_peft.py"
CASE = CASES / "adapter_peft"
CHECKPOINT = Checkpoint("tiny", "custom_voice", 0)
VOICE, TEXT, FRAMES = "vivian", "The ferry leaves at nine.", 9
RANK, ALPHA = 4, 6
LAYERS = ("talker.model.layers.", "talker.code_predictor.model.layers.")
TABLE = "talker.model.codec_embedding"
REQUEST: Json = {"language": "english", "do_sample": False, "subtalker_dosample": False, "max_new_tokens": 12}
FILES = ("adapter_config.json", "adapter_model.safetensors")
BOUND = 1e-12  # of float64
LEAD = 0.005  # of a code over the next, in logits: their float32 errors are 1e-5
REWRITE = """
import sys
from pathlib import Path
from qwen3tts_np.checkpoint.adapter import Adapter
from qwen3tts_np.training.adapters import write_adapter
write_adapter(Path(sys.argv[2]), Adapter.open(sys.argv[1]), "base", 64)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--checkpoints", type=Path)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        smith = Smith(args.python, (args.checkpoints or scratch / "checkpoints").resolve())
        base = smith.make(CHECKPOINT)
        if args.check:
            return check(base, args.python, scratch)
        record(base, smith.describe(CHECKPOINT), scratch / "adapter")
    store.write_manifest()
    return 0


def record(base: Path, checkpoint: Json, adapter: Path) -> None:
    """The adapter, and what is computed with it and without."""
    write(base, adapter)
    found = computed(base, adapter)
    case: Json = {
        "about": "A low-rank adapter as PEFT writes it: additions to every projection, and the row of a voice.",
        "made_by": MADE_BY,
        "checkpoint": checkpoint,
        "versions": {**versions(), "peft": version("peft")},
        "text": TEXT,
        "speaker": VOICE,
        "request": REQUEST,
        "losses": found["losses"],
        "losses_without": computed(base, None)["losses"],
        "sketch": sketch.RULE,
    }
    expected = {"logits": found["logits"], "codes.greedy": found["codes"]}
    store.write_case(CASE, case, {"codes": codes_of(base).astype(np.int32)}, expected)
    for file in FILES:
        shutil.copyfile(adapter / file, CASE / file)
    print(f"{CASE.name}: losses {case['losses']}, without it {case['losses_without']}")


def write(base: Path, target: Path) -> None:
    """Let PEFT write an adapter that has learnt something: values from the frozen stream of ``RandomState``."""
    model, draw = opened(base), np.random.RandomState(27)
    linear = (name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear))
    config = LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        target_modules=[name for name in linear if name.startswith(LAYERS)],
        trainable_token_indices={TABLE: [row_of(model)]},
    )
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for name, p in sorted(adapted.named_parameters()):
            if p.requires_grad:
                values = draw.randint(-512, 513, p.shape) / (1024 if "trainable_tokens" in name else 4096)
                p.copy_(torch.from_numpy(values))
    adapted.save_pretrained(str(target))
    stated = target / FILES[0]  # without the path of this machine
    config_json = {**json.loads(stated.read_text(encoding="utf-8")), "base_model_name_or_path": str(CHECKPOINT)}
    config_json["target_modules"] = sorted(config_json["target_modules"])  # a set, whose order changes
    stated.write_text(json.dumps(config_json, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def computed(base: Path, adapter: Path | None) -> Json:
    """Losses and logits of the lesson in float64, and the codes that the merged, rounded weights speak."""
    with float64(), torch.no_grad():
        network = opened(base)
        if adapter is not None:
            network = PeftModel.from_pretrained(network, str(adapter)).base_model.model
        network = network.double()
        row = network.talker.model.codec_embedding(torch.tensor([row_of(network)]))[0].numpy()
        logits: list[torch.Tensor] = []
        hook = network.talker.codec_head.register_forward_hook(lambda _m, _i, out: logits.append(out))
        talker, sub = losses_of(network, Lesson([ids_of(base)], [codes_of(base)], row), range(1), "inference")
        hook.remove()
    found = {
        "losses": {"talker": float(talker), "sub_talker": float(sub)},
        "logits": logits[0][0, -FRAMES - 1 :].numpy(),
    }
    if adapter is not None:
        found["codes"] = spoken(base, adapter)
    return found


def spoken(base: Path, adapter: Path) -> Any:
    """Greedy codes [frames, G] int32."""
    whole = load(base)
    whole.model.get_input_embeddings = whole.model.talker.get_input_embeddings
    whole.model = PeftModel.from_pretrained(whole.model, str(adapter)).merge_and_unload()
    with torch.no_grad():
        for p in whole.model.parameters():
            p.copy_(p.bfloat16())
    kept: list[Any] = []
    generate = whole.model.generate

    def noted(*arguments: Any, **more: Any) -> Any:
        kept.append(generate(*arguments, **more))
        return kept[-1]

    whole.model.generate = noted
    choices = Choices(whole)
    with choices.watching():
        whole.generate_custom_voice(TEXT, VOICE, **REQUEST)
    if choices.closest < LEAD:
        sys.exit(f"a code leads by {choices.closest:.2g} only: choose another text")
    codes, _ = kept[0]
    return codes[0].numpy().astype(np.int32)


def opened(base: Path) -> Any:
    """The official network, which can say where its codes are embedded."""
    network = load(base).model
    network.get_input_embeddings = network.talker.get_input_embeddings
    return network


def row_of(network: Any) -> int:
    return int(network.config.talker_config.spk_id[VOICE])


def ids_of(base: Path) -> list[int]:
    model = load(base)
    ids: list[int] = model._tokenize_texts([model._build_assistant_text(TEXT)])[0][0].tolist()
    return ids


def codes_of(base: Path) -> Any:
    talker = json.loads((base / "config.json").read_text(encoding="utf-8"))["talker_config"]
    size = talker["code_predictor_config"]["vocab_size"]
    return np.random.RandomState(28).randint(0, size, (FRAMES, talker["num_code_groups"]))


def check(base: Path, python: str, scratch: Path) -> int:
    """Whether PEFT still writes this adapter and computes this with it; and with the same as this package writes it."""
    write(base, scratch / "theirs")
    (scratch / "ours").mkdir()
    path = os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "kernels")))
    command = [python, "-c", REWRITE, str(CASE), str(scratch / "ours")]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path})
    case = json.loads((CASE / "case.json").read_text(encoding="utf-8"))
    expected, fine = load_file(CASE / "expected.safetensors"), True
    for who in ("theirs", "ours"):
        files = load_file(scratch / who / FILES[1]), load_file(CASE / FILES[1])
        same = files[0].keys() == files[1].keys() and all(np.array_equal(files[0][k], files[1][k]) for k in files[0])
        found = computed(base, scratch / who)
        apart = float(np.abs(found["logits"] - expected["logits"]).max())
        scale = float(np.abs(expected["logits"]).max())
        losses = max(abs(found["losses"][name] / value - 1) for name, value in case["losses"].items())
        codes = np.array_equal(found["codes"], expected["codes.greedy"])
        good = same and codes and apart <= BOUND * scale and losses <= BOUND
        print(
            f"{who}: tensors {'equal' if same else 'DIFFER'}, logits within {apart / scale:.1e}, "
            f"losses within {losses:.1e}, greedy codes {'equal' if codes else 'DIFFER'}: {'fine' if good else 'WRONG'}"
        )
        fine &= good
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
