"""The three prompt templates, and the parts the model takes from them by POSITION.

    text         <|im_start|> assistant \\n  {text}  <|im_end|> \\n <|im_start|> assistant \\n
    reference    <|im_start|> assistant \\n  {text}  <|im_end|> \\n
    instruction  <|im_start|> user \\n       {text}  <|im_end|> \\n

Trap: the complete template is tokenized at once and then cut after three tokens. A text that begins with a line end
shares a token with the third (``\\n\\n`` is one token), so the role ends with that token and the text starts after it.

Source: ``Qwen3TTSModel._build_*_text`` and the slices in ``Qwen3TTSForConditionalGeneration.generate``.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..arguments import require_text
from .tokenizer import Tokenizer

TEXT_TEMPLATE = "<|im_start|>assistant\n{text}<|im_end|>\n<|im_start|>assistant\n"
ROLE = 3  # <|im_start|> assistant \n
TEXT_TAIL = 5  # <|im_end|> \n <|im_start|> assistant \n
REFERENCE_TAIL = 2  # <|im_end|> \n


@dataclass(frozen=True)
class TextIds:
    """The text template in three parts; together they are the complete template."""

    role: list[int]  # [3]
    text: list[int]  # [T] the text to speak, may be empty
    tail: list[int]  # [5]

    @property
    def first(self) -> int:
        """The text token in a streaming prompt. For an empty text that is ``<|im_end|>``, as in the official slice."""
        return (self.text + self.tail)[0]

    @property
    def trailing(self) -> list[int]:
        """The text tokens [T - 1] that follow in a streaming prompt, one per frame."""
        return self.text[1:]


def text_ids(tokenizer: Tokenizer, text: str) -> TextIds:
    """The ids of the text to speak. Raises RequestError if it is not a proper string."""
    require_text(text, "text")
    return split_text(tokenizer.encode(TEXT_TEMPLATE.replace("{text}", text)))


def split_text(ids: list[int]) -> TextIds:
    """The parts of the complete template."""
    return TextIds(role=ids[:ROLE], text=ids[ROLE:-TEXT_TAIL], tail=ids[-TEXT_TAIL:])


def reference_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """The transcript [T] of the reference, without role and tail. Raises RequestError if it is not a proper string."""
    require_text(text, "reference text")
    return tokenizer.encode(f"<|im_start|>assistant\n{text}<|im_end|>\n")[ROLE:-REFERENCE_TAIL]


def instruct_ids(tokenizer: Tokenizer, instruct: str) -> list[int]:
    """The complete instruction template [T], empty for "". Raises RequestError if it is not a proper string."""
    require_text(instruct, "instruction")
    return tokenizer.encode(f"<|im_start|>user\n{instruct}<|im_end|>\n") if instruct else []
