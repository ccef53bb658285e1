"""The settings of a training run: one frozen dataclass, from options, a TOML file, or a ``.env`` file.

Every field carries what the command line, the files and the documentation say of it: its help, the reason for its
default, its names in the ``.env`` files of other training pipelines and the spellings that other scripts give it. So
there is one table, and this is it.

An option counts before the file, and the file before the default.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_type_hints

from ..arguments import real_number, require_text
from ..errors import RequestError
from ..files.input import read_text
from ..files.name import shown_name
from ..shown import shortened
from ..talker.generator import check_seed
from .batch import ALIGNMENTS
from .surgery import INITS

DEFAULT_SPEAKER = "speaker"  # of rows that name none, here and in ``train prepare``
MOST_CONFIG = 1 << 20  # bytes of a file of settings
MOST = 2**63  # what is counted with has 64 bits
SCHEDULES = ("cosine", "constant")
FROZEN_TYPES = ("stored", "bfloat16", "float32")
ADAPTERS = ("merged", "separate")
_LAST = re.compile(r"last:([1-9][0-9]{0,3})")
MODES = "lora, last:N, speaker or full"
RATES = {"lora": 2e-4, "speaker": 1e-3, "last": 2e-5, "full": 2e-5}
"""Learning rates where none is given. The official script has 2e-5 for all weights; additions of low rank, which begin
at zero, take ten times as much, and a single row again more."""


def setting(
    default: Any,
    help: str,
    why: str = "",
    *,
    env: tuple[str, ...] = (),
    also: tuple[str, ...] = (),
    choices: tuple[str, ...] = (),
    least: float | None = None,
    most: float | None = None,
) -> Any:
    """A field. ``env``: its names in ``.env`` files; ``also``: spellings of the option in other scripts."""
    told = {"help": help, "why": why, "env": env, "also": also, "choices": choices, "least": least, "most": most}
    return field(default=default, metadata=told)


@dataclass(frozen=True)
class TrainingSettings:
    """All that decides what a run computes and writes. RequestError, when it is made, for what no run can have."""

    model: str | None = setting(
        None, "the checkpoint that training begins from", env=("INIT_MODEL_PATH",), also=("init-model-path",)
    )
    data: str | None = setting(
        None, "the rows to learn: a prepared manifest", env=("TRAIN_JSONL",), also=("train-jsonl",)
    )
    output: str | None = setting(
        None, "the folder that is written", env=("OUTPUT_MODEL_PATH", "OUTPUT_DIR"), also=("output-model-path",)
    )
    validation: str | None = setting(
        None, "the rows to validate on (none: the training loss alone is known)", env=("VALIDATION_JSONL",)
    )
    codec: str | None = setting(
        None, "another codec folder than the checkpoint's own speech_tokenizer", env=("TOKENIZER_PATH",)
    )
    max_train_samples: int | None = setting(None, "the first N rows only", env=("MAX_TRAIN_SAMPLES",), least=1)
    max_eval_samples: int | None = setting(
        None, "the first N rows of --validation only", env=("MAX_EVAL_SAMPLES",), least=1
    )
    ref_audio: str | None = setting(
        None, "reference clip of the voice, for rows that name none", env=("REF_AUDIO_PATH",)
    )
    speaker_name: str = setting(
        DEFAULT_SPEAKER,
        "name of the voice, for rows that name no speaker",
        "what 'train prepare' calls the voice of such rows; written in lower case, as the official package looks it up",
        env=("SPEAKER_NAME",),
    )
    language: str | None = setting(None, "language of rows that name none (auto)")
    streaming: bool = setting(
        False,
        "lay rows out as they are streamed: one text token per frame",
        "the layout of the official script, and of whole texts",
    )

    train: str | None = setting(
        None,
        f"what is trained: {MODES}",
        "lora: fits 8 GB, and cannot forget what it does not touch; last:N where layers are replaced or added and the "
        "others frozen, full where they are not",
    )
    rank: int = setting(16, "rank of the low-rank additions", "12 M weights of 0.6B, as measured in the table", least=1)
    alpha: float = setting(
        16.0,
        "additions are scaled by alpha / rank",
        "a scale of 1: the learning rate alone says how fast they grow",
        least=0,
    )
    adapter: str = setting(
        "merged",
        "with lora: checkpoints that are complete, or the additions alone (PEFT's layout)",
        "complete ones load everywhere; the additions are kept in each, in adapter/",
        choices=ADAPTERS,
    )
    replace_last_n_layers: int = setting(
        0,
        "initialise so many of the last talker layers anew",
        "a model loses what they knew: on the demo voice its loss doubles before training",
        env=("REPLACE_LAST_N_LAYERS",),
        least=0,
    )
    add_new_layers: int = setting(0, "add so many talker layers behind them", env=("ADD_NEW_LAYERS",), least=0)
    freeze_original_layers: bool = setting(
        True, "with new layers: train these alone", "the reference pipeline's", env=("FREEZE_ORIGINAL_LAYERS",)
    )
    init: str = setting(
        "identity",
        "of added layers: identity (zero o_proj and down_proj) or xavier; replaced ones are always xavier",
        "identity leaves the model exactly as it was until it has learned something",
        choices=INITS,
    )

    train_text_embedding: bool = setting(
        False, "with full: train the text embedding too, as the official script does", "half of the model, for words"
    )

    batch_size: int = setting(2, "rows computed at a time", "the official script's", env=("BATCH_SIZE",), least=1)
    gradient_accumulation_steps: int = setting(
        4,
        "batches whose gradients make one step",
        "the official script's",
        env=("GRADIENT_ACCUMULATION_STEPS",),
        least=1,
    )
    num_epochs: int = setting(3, "times that every row is seen", "the official script's", env=("NUM_EPOCHS",), least=1)
    learning_rate: float | None = setting(
        None,
        "the rate at its highest (2e-4 for lora, 1e-3 for speaker, 2e-5 otherwise)",
        "2e-5 is the official script's, for all weights; additions that begin at zero need ten times as much",
        env=("LR", "LEARNING_RATE"),
        also=("lr",),
        least=0,
    )
    schedule: str = setting(
        "cosine",
        "of the rate, after the warm-up",
        "ends at small steps; constant is the official script's",
        choices=SCHEDULES,
    )
    warmup_steps: int = setting(
        100,
        "steps in which the rate rises from zero, at most a tenth of all",
        "the reference pipeline's; AdamW's moments mean little before",
        env=("WARMUP_STEPS",),
        least=0,
    )
    weight_decay: float = setting(
        0.01, "AdamW's decay, of matrices", "the official script's", env=("WEIGHT_DECAY",), least=0, most=1
    )
    decay_all: bool = setting(
        False, "decay norms, biases and embeddings too, as the official script does", "they have nothing to shrink to"
    )
    max_grad_norm: float = setting(
        1.0, "gradients are scaled down to this norm", "the official script's", env=("MAX_GRAD_NORM",), least=0
    )
    sub_talker_loss_weight: float = setting(
        0.3,
        "weight of the code predictor's loss",
        "the official script's",
        env=("SUB_TALKER_LOSS_WEIGHT",),
        least=0,
    )
    sub_talker_share: float = setting(
        0.25,
        "share of the frames, drawn anew at every step, from which the code predictor learns",
        "unbiased, and a step takes half the time; 1 is the official script's",
        least=0.01,
        most=1,
    )
    alignment: str = setting(
        "inference",
        "which code each state is to predict; official repeats the faults of the official script, for comparison",
        "what generation asks for",
        choices=tuple(ALIGNMENTS),
    )
    replace_past: float = setting(
        0.0,
        "share of the frames read that are exchanged for others with the same code 0, drawn anew at every step",
        "teaches a model to speak from a past it cannot rely on; 0.5 for small voices such as the demo's",
        least=0,
        most=1,
    )
    seed: int = setting(
        0, "everything random follows from it and the step", "so that a resumed run is the same run", least=0
    )

    frozen: str = setting(
        "stored",
        "type in which frozen weights are held",
        "as the checkpoint has them: bfloat16 loses nothing of itself, and takes half the memory",
        choices=FROZEN_TYPES,
    )
    recompute: bool = setting(
        False, "keep the inputs of layers only and compute the rest again", "1 GB less, 20 % slower, the same numbers"
    )
    threads: int | None = setting(None, "cores to use (default: all)", env=("OMP_NUM_THREADS",), least=1)

    logging_steps: int = setting(10, "steps between two lines of training_log.jsonl", env=("LOGGING_STEPS",), least=1)
    save_steps: int = setting(
        500,
        "steps between two checkpoints; an interruption costs as many at most",
        "the reference pipeline's",
        env=("SAVE_STEPS",),
        least=1,
    )
    eval_steps: int = setting(
        500, "steps between two validations", "the reference pipeline's", env=("EVAL_STEPS",), least=1
    )
    save_total_limit: int = setting(
        3, "checkpoint-N folders kept", "the reference pipeline's", env=("SAVE_TOTAL_LIMIT",), least=1
    )
    validation_texts: int = setting(
        3,
        "texts of --validation that a checkpoint just written speaks, to be measured; 0 for none",
        "half a minute each time, and it proves that the checkpoint loads",
        least=0,
    )

    use_wandb: bool = setting(False, "log to Weights & Biases (extra wandb)", env=("USE_WANDB",))
    wandb_project: str = setting("qwen3-tts-training", "its project", env=("WANDB_PROJECT",))
    wandb_run_name: str | None = setting(None, "its run", env=("WANDB_RUN_NAME",))
    wandb_entity: str | None = setting(None, "its entity", env=("WANDB_ENTITY",))
    upload_to_hub: bool = setting(
        False,
        "upload best and last when the run ends (extra hub); HF_TOKEN is read from the environment",
        env=("UPLOAD_TO_HUB", "UPLOAD_TO_HF"),
    )
    hub_model_id_best: str | None = setting(
        None, "repository of best, OWNER/NAME", env=("HUB_MODEL_ID_BEST", "HF_BEST_MODEL_REPO")
    )
    hub_model_id_last: str | None = setting(
        None, "repository of last, OWNER/NAME", env=("HUB_MODEL_ID_LAST", "HF_LAST_MODEL_REPO")
    )

    dry_run: bool = setting(
        False, "compute one step, say what a run would take, and write nothing", env=("PREPARE_ONLY",)
    )

    def __post_init__(self) -> None:
        for spec in fields(self):
            _check(spec.name, getattr(self, spec.name), spec.metadata)
        check_seed(self.seed)
        if self.train not in (None, "lora", "speaker", "full") and not _LAST.fullmatch(self.train):
            raise RequestError(f"train={shortened(self.train)} is none of {MODES}")
        if self.train in ("lora", "speaker") and self.new_layers:
            raise RequestError(
                f"train={self.train} trains no layer, so those that are replaced or added would stay as they are; "
                "take last:N or full"
            )
        if self.upload_to_hub and not (self.hub_model_id_best or self.hub_model_id_last):
            raise RequestError("upload_to_hub needs hub_model_id_best or hub_model_id_last, OWNER/NAME")

    @property
    def new_layers(self) -> int:
        """Layers at the end that are not the original ones."""
        return self.replace_last_n_layers + self.add_new_layers

    @property
    def mode(self) -> str:
        """``lora``, ``last:N``, ``speaker`` or ``full``: as asked for, or as the surgery wants it."""
        if self.train is not None:
            return self.train
        if not self.new_layers:
            return "lora"
        return f"last:{self.new_layers}" if self.freeze_original_layers else "full"

    @property
    def last(self) -> int:
        """N of ``last:N``; 0 in other modes."""
        found = _LAST.fullmatch(self.mode)
        return int(found[1]) if found else 0

    @property
    def rate(self) -> float:
        """The learning rate at its highest."""
        return RATES[self.mode.partition(":")[0]] if self.learning_rate is None else self.learning_rate

    def updated(self, values: Mapping[str, Any]) -> TrainingSettings:
        """These settings with some replaced. RequestError names one that is wrong or does not exist."""
        known = {spec.name for spec in fields(self)}
        for name in values:
            if name not in known:
                raise RequestError(f"there is no setting {shortened(name)}; there are {', '.join(sorted(known))}")
        return dataclasses.replace(self, **values)


KINDS: dict[str, type] = {
    name: next(part for part in (get_args(hint) or (hint,)) if part is not NoneType)
    for name, hint in get_type_hints(TrainingSettings).items()
}
"""Of each setting: str, int, float or bool."""
_OPTIONAL = {name for name, hint in get_type_hints(TrainingSettings).items() if isinstance(hint, UnionType)}
_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def _check(name: str, value: Any, told: Mapping[str, Any]) -> None:
    """RequestError unless ``value`` is one that the setting can have."""
    if value is None and name in _OPTIONAL:
        return
    kind = KINDS[name]
    if kind is str:
        require_text(value, name)
        if told["choices"] and value not in told["choices"]:
            raise RequestError(f"{name}={shortened(value)} is none of {', '.join(told['choices'])}")
        return
    wrong = type(value) is not kind and not (kind is float and type(value) is int)
    number = real_number(value) if kind is not bool else 0.0
    if wrong or (kind is float and not math.isfinite(number)):
        raise RequestError(f"{name}={shortened(value)} must be {_WORDS[kind]}")
    if kind is int and not -MOST < value < MOST:
        raise RequestError(f"{name}={shortened(value)} must be a whole number below {MOST}")
    least, most = told["least"], told["most"]
    if least is not None and number < least:
        raise RequestError(f"{name}={shortened(value)} must be at least {least:g}")
    if most is not None and number > most:
        raise RequestError(f"{name}={shortened(value)} must be at most {most:g}")


def defaults_table() -> str:
    """The settings with a reason, as the table of README.md."""
    rows = ["| setting | default | |", "|---|--:|---|"]
    for spec in fields(TrainingSettings):
        if why := spec.metadata["why"]:
            default = "" if spec.default is None else str(spec.default)
            rows.append(f"| `--{spec.name.replace('_', '-')}` | {default} | {why} |")
    return "\n".join(rows) + "\n"


def read_toml(path: Path) -> dict[str, Any]:
    """Settings in a TOML file, one ``name = value`` each; hyphens in names are underscores. RequestError for others."""
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        try:
            import tomli as tomllib  # type: ignore[import-not-found,no-redef,unused-ignore]
        except ModuleNotFoundError:
            raise RequestError(
                f"{shown_name(path)}: TOML is read by Python 3.11 and later, or with tomli: pip install tomli"
            ) from None
    try:
        found = tomllib.loads(read_text(path, MOST_CONFIG))
    except (ValueError, RecursionError) as e:  # of numbers too: Python reads none of more than some thousand digits
        reason = "it is nested too deeply" if isinstance(e, RecursionError) else e
        raise RequestError(f"{shown_name(path)} is not TOML: {reason}") from None
    return {name.replace("-", "_"): value for name, value in found.items()}
