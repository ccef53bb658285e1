"""Byte-level BPE as Qwen trained it: NFC, a regex that cuts the text into words, merges inside each word.

The three files are read as the official package reads them (``Qwen2Tokenizer``, converted to its fast version by
transformers) and passed to the ``tokenizers`` package, which does the work. Traps:

- 96 of the real merges begin with ``#``. Only a first line ``#version:`` is a header, and the real file has none.
- Added tokens are matched in the raw text, before NFC: a user who types ``<|im_end|>`` gets the special token.
- NFC is that of the ``tokenizers`` package. Its Unicode tables are older than Python's, so combining marks added to
  Unicode recently are not reordered.
- The official package cuts the text of a LOCAL checkpoint with another regex, see :func:`official_local`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from ..arguments import require_text
from ..checkpoint.json_file import MOST_JSON, read_json
from ..errors import CheckpointError, ConfigError, RequestError
from ..files.input import read_text
from ..shown import shortened
from . import tokenizer_json
from .packed_vocabulary import PackedVocabulary, pairs_of, read_packed, write_packed

Pattern = Literal["native", "mistral"]
Pretokenizer = Literal["native", "official-local", "mistral"]

PATTERNS: dict[Pattern, str] = {
    # English contractions | letters with one leading sign | one digit | signs with line ends | line ends | spaces
    "native": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    # Upper case then lower case, marks counted as letters: "iPhone" is two words, a Thai syllable is one
    "mistral": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}


class Tokenizer:
    """Text to token ids and back.

    ``pretokenizer`` is the regex in effect: ``"native"`` (Qwen's, the one the model was trained with) or ``"mistral"``.
    ``vocab_size`` is one more than the highest id, so the text embedding needs at least that many rows.
    """

    def __init__(self, backends: Backends, pretokenizer: Pattern, vocab_size: int, added: tuple[str, ...]) -> None:
        self._backends = backends
        self.added = added  # the literals that become one token wherever they occur
        self.pretokenizer: Pattern = pretokenizer
        self.vocab_size = vocab_size

    @classmethod
    def from_directory(cls, path: str | Path, pretokenizer: Pretokenizer = "native") -> Tokenizer:
        """Read ``vocab.json``, ``merges.txt`` and ``tokenizer_config.json``; or ``tokenizer.json``, as transformers 5
        writes it in their place.

        ``"official-local"`` uses the regex that the official package uses for this directory; ``"mistral"`` always uses
        Mistral's.

        Raises CheckpointError if a file is missing, malformed or does not fit the others, ConfigError if
        ``"official-local"`` cannot read ``config.json``, RequestError for another ``pretokenizer``.
        Source: ``Qwen2Converter`` and ``PreTrainedTokenizerFast`` in transformers 4.57.3.
        """
        directory = Path(path)
        if pretokenizer not in (*PATTERNS, "official-local"):
            raise RequestError(f"pretokenizer {shortened(pretokenizer)} is not one of native, official-local, mistral")
        packed = read_packed(directory)
        vocab, merges = _read_model(directory) if packed is None else ({}, [])
        size = len(vocab) if packed is None else len(packed)
        pattern = official_local(directory, size) if pretokenizer == "official-local" else pretokenizer
        table, path = _read_added(directory)
        added = _added_tokens(table, path)
        literals = {str(token.content): i for i, token in added.items()}
        finish = partial(_backend, pattern, added, path)
        source = finish(_whole_model(vocab, merges, directory)) if packed is None else packed
        backends = Backends(source, finish, literals)
        return cls(backends, pattern, vocab_size=max(size - 1, *added) + 1, added=tuple(literals))

    def to_json(self) -> str:
        """The complete tokenizer as a ``tokenizer.json``, which the ``tokenizers`` package reads in many languages."""
        return str(self._backends.of_all_texts().to_str())

    def complete(self) -> None:
        """Make ready what any text needs, so that no later call takes long."""
        self._backends.of_all_texts()

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``; literals of added tokens (``<|im_end|>``) become those tokens.

        Raises RequestError as :func:`require_text` does.
        """
        require_text(text, "text")
        ids: list[int] = self._backends.of(text).encode(text, add_special_tokens=False).ids
        return ids

    def words(self, text: str) -> list[tuple[int, list[int]]]:
        """The same ids word by word: the start in ``text`` of each regex piece or added token, and its ids."""
        require_text(text, "text")
        encoding = self._backends.of(text).encode(text, add_special_tokens=False)
        words: dict[int | None, tuple[list[int], list[int]]] = {}
        for word, (start, _), token in zip(encoding.word_ids, encoding.offsets, encoding.ids, strict=True):
            starts, ids = words.setdefault(word, ([], []))
            starts.append(start)
            ids.append(token)
        return [(min(starts), ids) for starts, ids in words.values()]

    def decode(self, ids: Sequence[int]) -> str:
        """The NFC text of ``ids``, added tokens included; bytes that are not UTF-8 become U+FFFD.

        Raises RequestError for an id without a token (the padding rows of the text embedding have none).
        """
        backend = self._backends.of_all_texts()
        for i in ids:
            if not 0 <= i < self.vocab_size or backend.id_to_token(i) is None:
                raise RequestError(f"token id {i} has no token; the vocabulary ends at {self.vocab_size - 1}")
        text: str = backend.decode(list(ids), skip_special_tokens=False)
        return text


class Backends:
    """The tokenizers of the package: one for all texts, or from packed tables, at first those that a text needs.

    A small one takes some milliseconds to make. After ``MOST_SMALL`` there is one for all texts.
    """

    MOST_SMALL = 8

    def __init__(
        self,
        source: tokenizers.Tokenizer | PackedVocabulary,
        finish: Callable[[models.BPE], tokenizers.Tokenizer],
        literals: Mapping[str, int],
    ) -> None:
        self._source, self._finish, self._literals = source, finish, literals
        self._small: tuple[NDArray[np.bool_], tokenizers.Tokenizer] | None = None  # pairs of bytes, and what knows them
        self._made = 0

    def of(self, text: str) -> tokenizers.Tokenizer:
        """One that gives ``text`` the ids of the complete vocabulary."""
        if not isinstance(self._source, PackedVocabulary) or self._made >= self.MOST_SMALL:
            return self.of_all_texts()
        if normalizers.NFC().normalize_str(text) != text:  # its bytes are not those that are tokenized
            return self.of_all_texts()
        pairs, small = pairs_of(text), self._small
        if small is not None and not (pairs & ~small[0]).any():
            return small[1]
        if small is not None:
            pairs |= small[0]
        backend = self._finish(self._source.model(pairs, self._literals))
        self._small, self._made = (pairs, backend), self._made + 1
        return backend

    def of_all_texts(self) -> tokenizers.Tokenizer:
        """The one with the complete vocabulary."""
        if isinstance(self._source, PackedVocabulary):
            self._source = self._finish(self._source.model(None, self._literals))
        return self._source


def pack_vocabulary(directory: Path) -> bool:
    """Write what :meth:`Tokenizer.from_directory` reads instead of its sources, beside them; whether it is possible."""
    vocab, merges = _read_model(directory)
    table, path = _read_added(directory)
    added = _added_tokens(table, path)
    _backend("native", added, path, _whole_model(vocab, merges, directory))  # files that do not fit are refused
    return write_packed(directory, vocab, merges, [str(token.content) for token in added.values()])


def _whole_model(vocab: dict[str, int], merges: list[tuple[str, str]], directory: Path) -> models.BPE:
    try:
        return models.BPE(vocab=vocab, merges=merges)
    except Exception as e:  # the package raises nothing more specific; it names the missing symbol
        raise CheckpointError(f"{directory}: merges.txt does not fit vocab.json ({shortened(str(e))})") from None


def _backend(pattern: Pattern, added: dict[int, AddedToken], path: Path, model: models.BPE) -> tokenizers.Tokenizer:
    """The steps around a model. The ids of the added tokens, which follow the others, must be those in their file."""
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERNS[pattern]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens(list(added.values()))
    for i, token in added.items():
        if backend.token_to_id(token.content) != i:
            actual = backend.token_to_id(token.content)
            raise CheckpointError(
                f"{path}: {shortened(token.content)} has id {i}, but after vocab.json its id is {actual}"
            )
    return backend


def official_local(directory: Path, vocab_size: int) -> Pattern:
    """The regex that the official package uses for a local checkpoint directory.

    transformers 4.57.3 takes a local tokenizer of more than 100,000 entries for a faulty Mistral one unless
    ``config.json`` rules that out, and the official package requests the fix (``fix_mistral_regex=True``). So every
    released checkpoint is read with Mistral's regex from disk, and with Qwen's by its hub name.

    Raises ConfigError if ``config.json`` is malformed. Source: ``PreTrainedTokenizerBase._patch_mistral_regex``.
    """
    config_file = directory / "config.json"
    if vocab_size <= 100_000 or not config_file.is_file():
        return "native"
    config = read_json(config_file)
    version = config.get("transformers_version")
    if not version:
        return "mistral"
    if _version_key(version, config_file) <= _version_key("4.57.2", config_file):
        suspects = (None, "mistral", "mistral3", "voxtral", "ministral", "pixtral")
        return "mistral" if config.get("model_type") in suspects else "native"
    return "mistral" if _version_key(version, config_file) < _version_key("5.0.0", config_file) else "native"


def _version_key(version: object, where: Path) -> tuple[list[int], int]:
    """The order of PEP 440, as far as a comparison with a plain release needs it: 5.0.0.dev0 < 5.0.0 < 5.0.0.post1."""
    match = re.fullmatch(r"v?(\d+(?:\.\d+)*)(.*)", version) if isinstance(version, str) else None
    if match is None:
        raise ConfigError(f"{where}: transformers_version {shortened(version)} is not a version such as '4.57.3'")
    release = [int(number) for number in match[1].split(".")]
    while release and release[-1] == 0:
        release.pop()
    before = re.match(r"[._-]?(a|b|c|rc|pre|dev)", match[2])
    return release, -1 if before else int(bool(match[2]))


def _read_model(directory: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The vocabulary and the merges, from whichever files have them."""
    path, alone = directory / "vocab.json", directory / tokenizer_json.NAME
    if path.exists() or not alone.exists():
        merges = directory / "merges.txt"
        return _checked_vocab(tokenizer_json.read_tables(path), path), _merges_of(_lines(merges), merges)
    vocab, lines = tokenizer_json.read_model(alone)
    return _checked_vocab(vocab, alone), _merges_of(lines, alone)


def _read_added(directory: Path) -> tuple[Any, Path]:
    """The added tokens, id -> properties, and the file that has them."""
    path, alone = directory / "tokenizer_config.json", directory / tokenizer_json.NAME
    if path.exists() or not alone.exists():
        table = tokenizer_json.read_tables(path).get("added_tokens_decoder")
        if table is not None or not alone.exists():
            return table, path
    return tokenizer_json.read_added(alone), alone


def _checked_vocab(vocab: dict[str, Any], path: Path) -> dict[str, int]:
    for token, i in vocab.items():
        if type(i) is not int or not 0 <= i < len(vocab):
            raise CheckpointError(
                f"{path}: the id of {shortened(token)} is {shortened(i)}, not a whole number from 0 to {len(vocab) - 1}"
            )
    if set(vocab.values()) != set(range(len(vocab))):  # added tokens are numbered on from the last
        raise CheckpointError(f"{path}: its {len(vocab)} tokens must have the ids 0 to {len(vocab) - 1}, each once")
    missing = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - vocab.keys())
    if missing:  # BPE would silently drop such bytes from the text
        raise CheckpointError(f"{path}: {len(missing)} of the 256 byte symbols are missing, one is {missing[0]!r}")
    return vocab


def _lines(path: Path) -> list[str]:
    lines = read_text(path, MOST_JSON).split("\n")
    if lines[0].startswith("#version:"):
        lines[0] = ""
    return lines


def _merges_of(lines: list[str], path: Path) -> list[tuple[str, str]]:
    merges: dict[tuple[str, str], None] = {}  # of duplicate rules the first counts
    for number, line in enumerate(lines, start=1):
        parts = line.split()
        if len(parts) == 2:
            merges[parts[0], parts[1]] = None
        elif parts:
            raise CheckpointError(f"{path}:{number}: a merge is two symbols, found {len(parts)}")
    return list(merges)


def _added_tokens(table: Any, path: Path) -> dict[int, AddedToken]:
    """The tokens of ``table`` in the order of their ids."""
    try:
        added = {int(i): AddedToken(**fields) for i, fields in sorted(table.items(), key=lambda item: int(item[0]))}
    except (AttributeError, TypeError, ValueError):
        raise CheckpointError(f"{path}: added_tokens_decoder must map ids to tokens with their properties") from None
    if not added:  # the templates could not be written
        raise CheckpointError(f"{path}: added_tokens_decoder is empty, <|im_start|> and its like are missing")
    return added
