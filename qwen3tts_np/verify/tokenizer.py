"""Checks that the tokenizer files are consistent with each other and with config.json."""

from __future__ import annotations

from pathlib import Path

from ..errors import QwenTTSError
from ..layout.description import REQUIRED, Description, is_there
from ..text.tokenizer import Tokenizer

TEXT_TOKENS = {
    "im_start_token_id": "<|im_start|>",
    "im_end_token_id": "<|im_end|>",
    "tts_pad_token_id": "<tts_pad>",
    "tts_bos_token_id": "<tts_text_bos>",
    "tts_eos_token_id": "<tts_text_eod>",
}


def tokenizer_problems(directory: Path, found: Description) -> list[str]:
    """The problems of the tokenizer files of ``directory``; missing files are already in ``found.problems``."""
    if found.config is None or not all(is_there(name, found.files) for name in REQUIRED):
        return []
    try:
        tokenizer = Tokenizer.from_directory(directory)
    except QwenTTSError as e:
        return [str(e)]
    problems = []
    rows = found.config.talker_config.text_vocab_size
    if tokenizer.vocab_size > rows:
        problems.append(f"the tokenizer has {tokenizer.vocab_size} ids, text_vocab_size is {rows}")
    for key, token in TEXT_TOKENS.items():
        expected, ids = getattr(found.config, key), tokenizer.encode(token)
        if ids != [expected]:
            problems.append(f"config.json: {key} = {expected}, but the tokenizer makes {ids} of {token}")
    return problems
