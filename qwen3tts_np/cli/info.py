"""``qwen3tts-np info``: description of a checkpoint and its problems."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator

from ..checkpoint.published import VOICES
from ..config import CodecConfig, CodePredictorConfig, ModelConfig, TalkerConfig
from ..layout.description import Description, WeightsSummary, describe, unpublished_files
from ..report.values import listed
from ..shown import printable
from ..verify.tokenizer import tokenizer_problems
from .options import add_checkpoint, checkpoint, new_parser
from .output import print_text

SIZES = {"0b6": "0.6B", "1b7": "1.7B"}
EXAMPLES = (
    "qwen3tts-np info Qwen/Qwen3-TTS-12Hz-0.6B-Base",
    "qwen3tts-np info Qwen/Qwen3-TTS-12Hz-0.6B-Base --json",
)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        commands,
        "info",
        EXAMPLES,
        help="what a checkpoint holds, and what is wrong with it",
        description="Print sizes, parameters, languages, speakers and files of a checkpoint directory, or of a "
        "speech_tokenizer directory alone, and any problem found. Exit status 1 if there are problems.",
    )
    add_checkpoint(parser)
    parser.add_argument("--json", action="store_true", help="everything, for programs")
    parser.add_argument("--verify", action="store_true", help="hash the files and compare them with the published ones")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    directory = checkpoint(args)
    found = describe(directory)
    problems = [*found.problems, *tokenizer_problems(directory, found)]
    if args.verify:
        problems += unpublished_files(found)
    found = dataclasses.replace(found, problems=problems)
    if args.json:
        print(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        print_text("\n".join(as_text(found, verified=args.verify)))
    return int(bool(problems))


def as_text(found: Description, verified: bool) -> Iterator[str]:
    yield found.directory
    if found.config is not None:
        yield from model_lines(found.config)
    if found.codec_config is not None:
        yield _line("codec", _codec(found.codec_config))
    layout = f"that of {found.released}" if found.released else "none of the published ones"
    yield _line("layout", layout + (", verified" if verified and not found.problems else ""))
    for summary in found.weights:
        yield from _weights(summary)
        kept = "speaker encoder" in summary.blocks
        if kept and found.config is not None and found.config.speaker_encoder_config is None:
            yield "  the speaker encoder is not used: only a base model has one; training that goes on may need it"
    for summary in found.packed:
        yield f"\n{summary.as_packed()}"
    yield "\nfiles"
    for name, size in found.files.items():
        yield f"  {name:<44} {size:>15,}"
    yield f"\nproblems: {len(found.problems) or 'none'}"
    yield from (f"  {printable(problem)}" for problem in listed(found.problems))


def model_lines(c: ModelConfig) -> Iterator[str]:
    talker = c.talker_config
    yield _line("model", f"{c.tts_model_type}, {SIZES.get(c.tts_model_size, c.tts_model_size)}")
    yield _line("talker", f"{_attention(talker)}, vocabulary {talker.vocab_size}")
    yield _line("text", f"vocabulary {talker.text_vocab_size}, width {talker.text_hidden_size}")
    yield _line(
        "code predictor", f"{_attention(talker.code_predictor_config)}, {talker.num_code_groups} codes per frame"
    )
    if c.speaker_encoder_config is not None:
        encoder = c.speaker_encoder_config
        yield _line("speaker encoder", f"channels {list(encoder.enc_channels)}, embedding {encoder.enc_dim}")
    yield _line("languages", ", ".join(sorted(talker.codec_language_id)) or "none")
    spoken = {name: talker.spk_is_dialect.get(name) for name in sorted(talker.spk_id)}
    speakers = (f"{name} ({dialect})" if dialect else name for name, dialect in spoken.items())
    yield _line("speakers", ", ".join(speakers) or "none")
    for name, voice in VOICES.items():
        if talker.spk_id.get(name) == voice.id:  # a fine-tuned model may give the name to somebody else
            yield f"    {name:<14} {voice.description}; {voice.native}"


def _codec(c: CodecConfig) -> str:
    rate = c.input_sample_rate / c.encode_downsample_rate
    codes = f"{c.decoder_config.num_quantizers} codes of {c.decoder_config.codebook_size}"
    return f"{c.input_sample_rate} Hz to {c.output_sample_rate} Hz, {rate:g} frames per second, {codes} per frame"


def _attention(c: TalkerConfig | CodePredictorConfig) -> str:
    heads = f"{c.num_attention_heads} query and {c.num_key_value_heads} key/value heads of {c.head_dim}"
    return f"{c.num_hidden_layers} layers, width {c.hidden_size}, {heads}, feed-forward {c.intermediate_size}"


def _weights(summary: WeightsSummary) -> Iterator[str]:
    types = ", ".join(f"{count} {dtype}" for dtype, count in summary.dtypes.items())
    yield f"\n{summary.file}: {summary.tensors} tensors ({types}), {summary.data_bytes:,} bytes of weights"
    for block, parameters in summary.blocks.items():
        yield f"  {block:<44} {parameters:>15,}"
    yield f"  {'parameters':<44} {summary.parameters:>15,}"


def _line(name: str, value: str) -> str:
    return f"  {name:<16} {printable(value)}"
