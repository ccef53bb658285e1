"""Text -> token ids: the byte-level BPE tokenizer and the prompt templates."""

from .templates import TextIds, instruct_ids, reference_ids, text_ids
from .tokenizer import Tokenizer

__all__ = ["TextIds", "Tokenizer", "instruct_ids", "reference_ids", "text_ids"]
