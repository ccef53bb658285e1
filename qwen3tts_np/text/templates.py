"""The three prompt templates, and the parts the model takes from them by POSITION.

    text         <|im_start|> assistant \\n  {text}  <|im_end|> \\n <|im_start|> assistant \\n
    reference    <|im_start|> assistant \\n  {text}  <|im_end|> \\n
    instruction  <|im_start|> user \\n       {text}  <|im_end|> \\n

Trap: the whole template is tokenized at once and then cut after three tokens. A text that begins with a line end
shares a token with the third (``\\n\\n`` is one token), so the role ends with that token and the text starts after it.

Source: ``Qwen3TTSModel._build_*_text`` and the slices in ``Qwen3TTSForConditionalGeneration.generate``.
"""

from __future__ import annotations

from dataclasses import dataclass

from .tokenizer import Tokenizer, require_text

TEXT_TEMPLATE = "<|im_start|>assistant\n{text}<|im_end|>\n<|im_start|>assistant\n"
ROLE = 3  # <|im_start|> assistant \n
TEXT_TAIL = 5  # <|im_end|> \n <|im_start|> assistant \n
REFERENCE_TAIL = 2  # <|im_end|> \n


@dataclass(frozen=True)
class TextIds:
    """The text template in three parts; together they are the whole template."""

    role: list[int]  # [3]
    text: list[int]  # [T] the words to say, may be empty
    tail: list[int]  # [5]

    @property
    def first(self) -> int:
        """The text token in a streaming prompt. For an empty text that is ``<|im_end|>``, as in the official slice."""
        return (self.text + self.tail)[0]

    @property
    def trailing(self) -> list[int]:
        """[T-1] The text tokens that follow one a frame in a streaming prompt."""
        return self.text[1:]


def text_ids(tokenizer: Tokenizer, text: str) -> TextIds:
    """The text to say. RequestError if it is not a proper string."""
    require_text(text, "text")
    return split_text(tokenizer.encode(TEXT_TEMPLATE.replace("{text}", text)))


def split_text(ids: list[int]) -> TextIds:
    """The parts of the whole template."""
    return TextIds(role=ids[:ROLE], text=ids[ROLE:-TEXT_TAIL], tail=ids[-TEXT_TAIL:])


def reference_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """[T] The words of the reference audio, without role and tail. RequestError if ``text`` is not a proper string."""
    require_text(text, "reference text")
    return tokenizer.encode(f"<|im_start|>assistant\n{text}<|im_end|>\n")[ROLE:-REFERENCE_TAIL]


def instruct_ids(tokenizer: Tokenizer, instruct: str) -> list[int]:
    """[T] The whole instruction template, or nothing for "". RequestError if ``instruct`` is not a proper string."""
    require_text(instruct, "instruction")
    return tokenizer.encode(f"<|im_start|>user\n{instruct}<|im_end|>\n") if instruct else []
