"""Text -> token ids: the byte-level BPE tokenizer, the prompt templates, and how a text is cleaned and split."""
