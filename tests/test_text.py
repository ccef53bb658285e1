"""The tokenizer against ids of the official processor, other projects' cases, and itself."""

from __future__ import annotations

import json
import re
import shutil
import string
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3tts_np.errors import CheckpointError, ConfigError, QwenTTSError, RequestError
from qwen3tts_np.synthetic import text as synthetic_text
from qwen3tts_np.synthetic.text import write_tokenizer_files
from qwen3tts_np.text.templates import instruct_ids, reference_ids, text_ids
from qwen3tts_np.text.tokenizer import PATTERNS, Tokenizer, official_local

CASE = Path(__file__).parents[1] / "golden" / "cases" / "text"
SMALL = CASE / "tokenizer"
NATIVE = Tokenizer.from_directory(SMALL)
MISTRAL = Tokenizer.from_directory(SMALL, "mistral")


def golden(name: str) -> Any:
    return json.loads((CASE / name).read_text(encoding="utf-8"))


IDS: dict[str, list[list[Any]]] = golden("ids.json")


# -- against the official processor, on the small vocabulary ---------------------------------------------------------


@pytest.mark.parametrize("group", IDS)
def test_ids_are_the_official_ones(group: str) -> None:
    for text, native, *mistral in IDS[group]:
        assert NATIVE.encode(text) == native, text
        assert MISTRAL.encode(text) == (mistral[0] if mistral else native), text


def test_the_golden_tells_the_two_regexes_apart() -> None:
    differ = {group for group, rows in IDS.items() for row in rows if len(row) == 3}
    assert differ == {"thai", "other scripts", "camel case", "contractions"}
    assert golden("case.json")["patterns"] == PATTERNS


def test_a_reader_that_drops_the_hash_merges_is_caught(tmp_path: Path) -> None:
    copied = small_copy(tmp_path)
    merges = (copied / "merges.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in merges if not line.startswith("#")]
    assert len(merges) - len(kept) >= 5
    (copied / "merges.txt").write_text("".join(kept), encoding="utf-8")
    broken = Tokenizer.from_directory(copied)
    assert any(broken.encode(text) != native for text, native, *_ in IDS["code"])


@pytest.mark.parametrize("row", golden("templates.json"), ids=lambda row: repr(row["input"]))
def test_template_parts_are_the_official_slices(row: dict[str, Any]) -> None:
    ids = text_ids(NATIVE, row["input"])
    assert (ids.role, ids.text) == (row["role"], row["text"])
    assert ([ids.first], ids.trailing) == (row["first"], row["trailing"])
    assert reference_ids(NATIVE, row["input"]) == row["reference"]
    assert instruct_ids(NATIVE, row["input"]) == (row["instruct"] if row["input"] else [])


@pytest.mark.parametrize("row", golden("choices.json"), ids=lambda row: f"{row['vocab_size']} {row['config']}")
def test_official_local_chooses_as_the_official_package(row: dict[str, Any], tmp_path: Path) -> None:
    if row["config"] is not None:
        (tmp_path / "config.json").write_text(json.dumps(row["config"]))
    assert official_local(tmp_path, row["vocab_size"]) == row["pretokenizer"]


@pytest.mark.parametrize(("size", "regex"), [(100_000, "native"), (100_001, "mistral")])
def test_official_local_counts_the_vocabulary_without_added_tokens(size: int, regex: str, tmp_path: Path) -> None:
    copied = small_copy(tmp_path)
    vocab = json.loads((copied / "vocab.json").read_text(encoding="utf-8"))
    config = json.loads((copied / "tokenizer_config.json").read_text(encoding="utf-8"))
    vocab |= {f"<filler {i}>": i for i in range(len(vocab), size)}
    added = config["added_tokens_decoder"].values()
    config["added_tokens_decoder"] = {str(size + i): token for i, token in enumerate(added)}
    (copied / "vocab.json").write_text(json.dumps(vocab))
    (copied / "tokenizer_config.json").write_text(json.dumps(config))
    (copied / "config.json").write_text('{"model_type": "qwen3_tts", "transformers_version": "4.57.3"}')
    tokenizer = Tokenizer.from_directory(copied, "official-local")
    assert tokenizer.pretokenizer == regex
    assert tokenizer.vocab_size == size + 33
    assert Tokenizer.from_directory(copied).pretokenizer == "native"


# -- the real vocabulary ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(reference: Path) -> Tokenizer:
    return Tokenizer.from_directory(reference / "tokenizer")


@pytest.mark.parametrize("name", ["qwen2", "deepseek-r1-qwen"])
def test_cases_of_llama_cpp(real: Tokenizer, reference: Path, name: str) -> None:
    folder = reference / "peer-cases" / "llamacpp"
    texts = (folder / f"ggml-vocab-{name}.gguf.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    lines = (folder / f"ggml-vocab-{name}.gguf.out").read_text(encoding="utf-8").split("\n")
    assert len(texts) == len(lines) == 47  # the last one is what follows the last separator: nothing
    for text, line in zip(texts, lines, strict=True):
        assert real.encode(text) == [int(i) for i in line.split()], text


def test_cases_of_the_slow_tokenizer(real: Tokenizer, reference: Path) -> None:
    cases = json.loads((reference / "peer-cases" / "tokenizer_cases_139.json").read_text(encoding="utf-8"))
    assert len(cases) == 139
    for text, ids in cases:
        assert real.encode(text) == ids, text


def test_a_released_checkpoint_directory(real: Tokenizer, reference: Path, tmp_path: Path) -> None:
    for file in (reference / "tokenizer").iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "config.json").symlink_to(reference / "configs" / "0.6B-Base" / "config.json")
    local = Tokenizer.from_directory(tmp_path, "official-local")
    assert (real.pretokenizer, local.pretokenizer) == ("native", "mistral")
    assert real.vocab_size == local.vocab_size == 151676
    # As the official processor has them, without and with config.json beside the tokenizer files.
    assert real.encode(" iPhone camelCase ก็ดี") == [12167, 49152, 4207, 126675, 128151, 28319]
    assert local.encode(" iPhone camelCase ก็ดี") == [600, 6939, 49152, 4207, 129300, 124311]
    for rows in (IDS["english"], IDS["chinese"], IDS["mixed languages"]):
        assert [real.encode(row[0]) for row in rows] == [local.encode(row[0]) for row in rows]


def test_the_tokens_of_the_templates(real: Tokenizer) -> None:
    ids = text_ids(real, "你好，世界！")
    assert ids.role == [151644, 77091, 198]
    assert ids.tail == [151645, 198, 151644, 77091, 198]
    assert ids.text == [108386, 3837, 99489, 6313]
    assert instruct_ids(real, "你好，世界！") == [151644, 872, 198, *ids.text, 151645, 198]


# -- the vocabulary of synthetic checkpoints -------------------------------------------------------------------------


def test_synthetic_files_are_those_of_the_golden(tmp_path: Path) -> None:
    write_tokenizer_files(tmp_path)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (SMALL / name).read_bytes(), name


def test_synthetic_ids_are_those_of_the_tokens(tmp_path: Path) -> None:
    v = write_tokenizer_files(tmp_path)
    tokens = "assistant<|im_start|><|im_end|><tts_pad><tts_text_bos><tts_text_eod>"
    ids = [v.assistant_token_id, v.im_start_token_id, v.im_end_token_id]
    assert NATIVE.encode(tokens) == [*ids, v.tts_pad_token_id, v.tts_bos_token_id, v.tts_eos_token_id]
    assert v.text_vocab_size % 32 == 0
    assert NATIVE.vocab_size <= v.text_vocab_size < NATIVE.vocab_size + 32


def test_synthetic_vocabulary_has_the_traps_of_the_real_one() -> None:
    words = [*synthetic_text.WORDS.split(), *synthetic_text.BLANKS]
    words += [f" {word}" for word in synthetic_text.SPACED_WORDS.split()]
    # A word with marks or an ending after 's is cut by the regex before any merge can join it.
    cut = [word for word in words if any(unicodedata.category(c) in ("Mn", "Mc") for c in word) or word == "'sok"]
    # A variation selector is a mark as well, but one that follows a sign, which the regex takes with it.
    assert [word for word in words if len(NATIVE.encode(word)) > 1] == [word for word in cut if word != "❤️"]
    assert not (SMALL / "merges.txt").read_text(encoding="utf-8").startswith("#version")
    assert len(NATIVE.encode("<|im_start|>assistant\n")) == 3
    assert len(NATIVE.encode("\n\n")) == 1


def test_synthetic_config_has_the_official_layout(reference: Path) -> None:
    official = json.loads((reference / "tokenizer" / "tokenizer_config.json").read_text(encoding="utf-8"))
    shift = 151676 - NATIVE.vocab_size
    added = official["added_tokens_decoder"]
    official["added_tokens_decoder"] = {str(int(i) - shift): token for i, token in added.items()}
    ours = json.loads((SMALL / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert json.dumps(ours) == json.dumps(official)  # as text: the order of the keys counts


# -- properties ------------------------------------------------------------------------------------------------------

LITERALS = [content for content, _ in synthetic_text.ADDED_TOKENS]


def ordered_alike(character: str) -> bool:
    """Python's Unicode tables are newer than those of the tokenizers package: they reorder marks which it leaves."""
    return unicodedata.combining(character) == unicodedata.ucd_3_2_0.combining(character)


ANY_TEXT = st.text(st.characters(codec="utf-8").filter(ordered_alike)).filter(
    lambda text: not any(literal in text for literal in LITERALS)
)


@given(ANY_TEXT)
def test_decoding_gives_the_text_in_nfc(text: str) -> None:
    expected = unicodedata.normalize("NFC", text)
    assert NATIVE.decode(NATIVE.encode(text)) == expected
    assert MISTRAL.decode(MISTRAL.encode(text)) == expected


@given(ANY_TEXT)
def test_ids_do_not_depend_on_the_normal_form(text: str) -> None:
    assert NATIVE.encode(unicodedata.normalize("NFD", text)) == NATIVE.encode(text)


LETTERS = st.characters(categories=("Ll", "Lo")).filter(lambda c: unicodedata.is_normalized("NFC", c))
WORD = st.builds(
    lambda word, end: word + end,
    st.one_of(
        st.sampled_from([word for word in synthetic_text.SPACED_WORDS.split() if word.isalpha() and word.islower()]),
        st.text(LETTERS, min_size=1, max_size=8),
        st.text(string.ascii_lowercase, min_size=1, max_size=8).map(str.capitalize),
        st.text(string.ascii_uppercase + string.digits, min_size=1, max_size=5),
    ),
    st.sampled_from(["", "", "", ",", ".", "!", "?", "...", "'s", "'ll", "。", "，", ".\n", "\n\n"]),
)


@given(st.lists(WORD).map(" ".join))
def test_the_two_regexes_agree_on_ordinary_prose(prose: str) -> None:
    assert NATIVE.encode(prose) == MISTRAL.encode(prose)


@given(ANY_TEXT, st.sampled_from(["", "Hello", "\n", "<|im_end|>"]))
def test_the_parts_of_a_template_make_it_whole(text: str, end: str) -> None:
    ids = text_ids(NATIVE, text + end)
    whole = NATIVE.encode(f"<|im_start|>assistant\n{text}{end}<|im_end|>\n<|im_start|>assistant\n")
    assert ids.role + ids.text + ids.tail == whole
    assert NATIVE.decode(ids.tail) == "<|im_end|>\n<|im_start|>assistant\n"
    assert ids.role + reference_ids(NATIVE, text + end) + ids.tail[:2] == whole[:-3]


# -- what a user can cause -------------------------------------------------------------------------------------------


def small_copy(folder: Path) -> Path:
    for file in SMALL.iterdir():
        shutil.copy(file, folder)
    return folder


def test_a_merge_of_hashes_in_the_first_line_is_a_merge(tmp_path: Path) -> None:
    copied = small_copy(tmp_path)
    merges = (copied / "merges.txt").read_text(encoding="utf-8").split("\n")
    hashes = next(line for line in merges if line.startswith("#"))
    assert all(part in json.loads((copied / "vocab.json").read_text(encoding="utf-8")) for part in hashes.split())
    (copied / "merges.txt").write_text("\n".join([hashes, *(m for m in merges if m != hashes)]), encoding="utf-8")
    text = hashes.replace(" ", "")
    assert len(Tokenizer.from_directory(copied).encode(text)) == 1
    (copied / "merges.txt").write_text("\n".join(m for m in merges if m != hashes), encoding="utf-8")
    assert len(Tokenizer.from_directory(copied).encode(text)) > 1


def test_only_a_first_line_is_a_header(tmp_path: Path) -> None:
    copied = small_copy(tmp_path)
    merges = (copied / "merges.txt").read_text(encoding="utf-8")
    (copied / "merges.txt").write_text(f"#version: 0.2\n{merges}", encoding="utf-8")
    assert Tokenizer.from_directory(copied).encode("#include") == NATIVE.encode("#include")
    (copied / "merges.txt").write_text(f"{merges}#version: 0.2\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"merges\.txt does not fit vocab\.json .*#version"):
        Tokenizer.from_directory(copied)


def edited(name: str, old: str, new: str) -> Any:
    def edit(folder: Path) -> None:
        text = (folder / name).read_text(encoding="utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1), encoding="utf-8")

    return edit


BAD_FILES = {
    "no vocab": (lambda d: (d / "vocab.json").unlink(), r"vocab\.json not found"),
    "no merges": (lambda d: (d / "merges.txt").unlink(), r"merges\.txt cannot be read"),
    "no config": (lambda d: (d / "tokenizer_config.json").unlink(), r"tokenizer_config\.json not found"),
    "no JSON": (lambda d: (d / "vocab.json").write_text('{"!": 0,'), r"vocab\.json:1: not valid JSON"),
    "a list": (lambda d: (d / "vocab.json").write_text("[]"), r"a JSON object was expected, found list"),
    "no UTF-8": (
        lambda d: (d / "merges.txt").write_bytes(b"i n\n\xff n\n"),
        r"merges\.txt cannot be read: byte 4 is not UTF-8",
    ),
    "id not a number": (edited("vocab.json", '"!":0', '"!":"0"'), r"the id of '!' is '0', not a whole number"),
    "negative id": (edited("vocab.json", '"!":0', '"!":-1'), r"the id of '!' is -1"),
    "no byte symbol": (
        edited("vocab.json", '"Ċ":', '"ĊĊĊĊĊĊĊĊ":'),
        r"1 of the 256 byte symbols are missing, one is 'Ċ'",
    ),
    "three symbols": (edited("merges.txt", "\n", " x\n"), r"merges\.txt:1: a merge is two symbols, found 3"),
    "unknown symbol": (edited("merges.txt", "\n", "\nq qq\n"), r"merges\.txt does not fit vocab\.json"),
    "no added tokens": (edited("tokenizer_config.json", "added_tokens_decoder", "x"), r"added_tokens_decoder must map"),
    "empty table": (
        lambda d: (d / "tokenizer_config.json").write_text('{"added_tokens_decoder": {}}'),
        r"added_tokens_decoder is empty",
    ),
    "odd added token": (
        edited("tokenizer_config.json", '"lstrip": false', '"lstrip": "no"'),
        r"added_tokens_decoder must map",
    ),
    "other id": (edited("tokenizer_config.json", '"1469"', '"1468"'), r"'<\|endoftext\|>' has id 1468, .* is 1469"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_named_in_one_sentence(name: str, tmp_path: Path) -> None:
    spoil, message = BAD_FILES[name]
    spoil(small_copy(tmp_path))
    with pytest.raises(CheckpointError, match=message) as caught:
        Tokenizer.from_directory(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is .* a Qwen3-TTS checkpoint directory"):
        Tokenizer.from_directory(tmp_path / "nowhere")


@pytest.mark.parametrize("config", ['{"transformers_version": 5}', '{"transformers_version": "new"}', "{"])
def test_a_version_that_cannot_be_read(config: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ConfigError, match=r"config\.json"):
        official_local(tmp_path, 151643)


def test_unknown_pretokenizer() -> None:
    with pytest.raises(RequestError, match="'local' is not one of native, official-local, mistral"):
        Tokenizer.from_directory(SMALL, "local")  # type: ignore[arg-type]


@pytest.mark.parametrize("call", [lambda x: NATIVE.encode(x), lambda x: text_ids(NATIVE, x)])
@pytest.mark.parametrize(("bad", "message"), [(None, "not NoneType"), (b"a", "not bytes"), (["a"], "not list")])
def test_text_that_is_no_string(call: Any, bad: object, message: str) -> None:
    with pytest.raises(RequestError, match=f"text must be a string, {message}"):
        call(bad)


def test_half_a_surrogate_pair() -> None:
    message = re.escape("U+D83D at position 2 is half a surrogate pair, not a character")
    for name, call in {
        "text": text_ids,
        "reference text": reference_ids,
        "instruction": instruct_ids,
    }.items():
        with pytest.raises(RequestError, match=f"{name}: {message}"):
            call(NATIVE, "ab\ud83d")


@pytest.mark.parametrize("bad", [-1, NATIVE.vocab_size, 10**12])
def test_an_id_without_a_token(bad: int) -> None:
    with pytest.raises(QwenTTSError, match=f"token id {bad} has no token; the vocabulary ends at 1501"):
        NATIVE.decode([0, bad])
