"""Splitting a text: what is and is not the end of a sentence in ten languages, and pieces that lose nothing."""

from __future__ import annotations

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3tts_np import RequestError
from qwen3tts_np.text.languages import HABITS, guess, habits_of
from qwen3tts_np.text.pace import milliseconds, most_milliseconds
from qwen3tts_np.text.sentences import Break, sentence_ends, split

# "|" marks where a sentence ends and another begins; nowhere else may the text be split.
MARKED = {
    "english": [
        "He paid $3.50.| Then he left.",
        "Dr. J. R. Smith met Mrs. O'Hara vs. Mr. Doe.| They spoke.",
        "We left at 5 p.m. on Jan. 3, 2020.| It rained.",
        "We left at 5 p.m.| The train was late.",
        "It is 5 p.m. Eastern time.",
        "The U.S. Army came.| In the U.S. it rains.",
        '"Stop!" she said.| "Why?" he asked.',
        'She turned to him, "This is great."| She held the book out.',
        "(He was late.)| (Really?)| He ran.",
        "See www.example.com/a?b=c!d for more.| Or write to a.b@c.org.| Bye.",
        "Wait... what?| No... no... no!| Well...| Then go.",
        "Apples, pears, etc. are fruit.| Buy apples, etc.| They are good.",
        "He said no.| Then no. 5 left.",
        "So do I.| But I. Newton did not.",
        "1. Introduction to it.| 2. The rest.",
        "He read pp. 3-5 of vol. 2, ch. 7 and fig. 3.| Then he slept.",
        "Plan B.| The end is near.",
        "Hello.| 'Nested \"quotes.\"'| End.",
        "The file is called a.b.c.| It is v1.2.3.| Done.",
        "Is it (yes!) done?| Yes!!!| No?!| Good.",
        "He lives on 5th Ave. near St. John's Rd. in N. Y.| He does.",
        "Ph.D. students, e.g. Ann, i.e. the best.| Yes.",
        "Marks & Co. Ltd. sold it.| It was cheap.",
        "The King (?) Arthur came.",
        "Version 2.| Next one.",
    ],
    "german": [
        "Am 3. Mai 2020 kam er um 15.30 Uhr.| Es regnete.",
        "Im 19. Jahrhundert war das z. B. so, d. h. anders.| Heute nicht.",
        "Herr Dr. Müller und Fr. Prof. Schmidt gingen.| Sie lachten.",
        "Friedrich II. König von Preußen.| Er starb.",
        "»Komm!«, rief er.| »Nein.«| Er ging.",
        "„Komm!“, rief er.| „Nein.“| „Doch!“| Er ging.",
        "Äpfel, Birnen usw. sind Obst.| Er kaufte Äpfel usw.| Sie nicht.",
        "Nr. 5 kostet ca. 3.000,50 € inkl. MwSt.| Gut.",
        "Das war 1990.| Danach nichts.",
        "Er kam am 25.| Dann ging er.",
        "Was …| Ich weiß nicht.",
        "Die GmbH Müller u. Co. KG aus St. Gallen.| Ja.",
        "Siehe S. 12 ff. und Abb. 3.| Dort steht es.",
    ],
    "french": [
        "M. Dupont et Mme Durand, p. ex., ont payé 3,50 €.| C'est fini.",
        "« Viens ! » dit-il.| « Non. »| Il partit.",
        "« Viens ! »| Puis il partit.",
        "Quoi ?!| Non !| Si… peut-être.",
        "Le Dr Martin habite av. Foch, n° 5, tél. 01.02.03.04.05.| Il dort.",
        "Il est né en 50 av. J.-C. à Rome.| Il est mort.",
        "Des pommes, etc.| L'été vient.",
        "M. J. Verne a écrit.| Il était grand.",
        "Allons-y.| Vite.",
        "Fin.| « Puis » il dort.",
    ],
    "spanish": [
        "El Sr. López y la Dra. Ruiz viven en la Av. Norte, núm. 5.| Es verdad.",
        "¿Vienes?| ¡Sí!| ¿Cuándo?| Hoy.",
        "EE. UU. ganó 3.500,00 dólares.| Es mucho.",
        "Fue en el año 30 a. C. en Roma.| Luego murió.",
        "Dijo: «Ven.»| Y se fue.",
        "—¿Vienes? —preguntó él.| —No —dijo ella.",
        "Frutas, verduras, etc.| El precio sube.",
        "D. Juan y Dña. Ana, p. ej., comen.| Beben.",
        "Ud. no sabe.| Pero yo sí.",
    ],
    "portuguese": [
        "O Sr. Silva e a Dra. Ana pagaram R$ 3.500,00.| Foi caro.",
        "A Av. Paulista, n. 5, em S. Paulo.| É longa.",
        "— Vens? — perguntou ele.| — Não.| Ele foi.",
        "Frutas, p. ex. maçãs, etc.| O preço sobe.",
        "Em 30 a.C. morreu.| Depois não.",
        "Os EUA.| A guerra.",
        "Disse: “Vem.”| E foi.",
    ],
    "italian": [
        "Il dott. Rossi e la sig.ra Bianchi partono alle 15.30.| Ciao.",
        "Mele, pere, ecc. sono frutti.| Compra mele, ecc.| Sono buone.",
        "L'avv. G. Verdi, p. es., abita al n. 5.| Dorme.",
        "«Vieni!» disse.| «No.»| Poi andò via.",
        "La Fiat S.p.A. di Torino.| È grande.",
        "Nel 30 a.C. morì.| Poi nulla.",
        "Perché?| Perché no!| Allora… andiamo.",
    ],
    "russian": [
        "В 1990 г. он жил в г. Москве, т. е. дома.| Потом уехал.",
        "А. С. Пушкин и М. Ю. Лермонтов писали.| Их читали.",
        "Яблоки, груши и т. д. лежали.| Яблоки, груши и т. п.| Он ел.",
        "«Пойдём!» — сказал он.| «Нет».| Он ушёл.",
        "— Кто там?| — Это я.| Но кто?",
        "Ул. Ленина, д. 5, кв. 3.| Там тепло.",
        "См. стр. 5, рис. 3 и табл. 2.| Там всё.",
        "Цена 3,5 тыс. руб. за шт. товара.| Это много.",
        "Проф. Иванов, напр., и др. учёные.| Они спорят.",
        "Что?..| Не знаю...| Ладно.",
    ],
    "chinese": [
        "价格是3.5元。|真的吗？！|是的……好吧。|再见！",
        "他说：“走吧。”|然后离开了。",
        "“走吧。”他说。|“好。”|“走！”|他们走了。",
        "「走吧。」|他走了。|『好！』",
        "（他来了。）|她走了。",
        "请看www.a.com的说明。|版本v1.2.3发布。",
        "真的吗?|是的!|好。",
        "他在U.S. Army工作。|完了。",
        "第１．５章。|完。",
        "他来了.|她走了.",
        "句子。| 有空格。",
    ],
    "japanese": [
        "「行くよ。」と彼は言った。|そうですか？|はい。",
        "「行くよ。」|彼は立った。|「待って！」という声。",
        "3.5キロです。|Dr. Smithが来た。|終わり。",
        "えっ……本当？！|うん。|（笑。）|さて。",
        "『本。』を読む。|寝る。",
    ],
    "korean": [
        "그는 3.5킬로를 걸었다.| 안녕하세요.| 네!",
        '"가자."라고 그가 말했다.| "그래!"| 끝.',
        "정말요?| 네... 그래요.| J. K. Rowling이 썼다.",
        "(웃음.)| 그리고 갔다.",
    ],
}


@pytest.mark.parametrize(
    ("language", "marked"), [(language, marked) for language, texts in MARKED.items() for marked in texts]
)
def test_sentences_end_where_a_reader_says(language: str, marked: str) -> None:
    text = marked.replace("|", "")
    cuts = [0, *sentence_ends(text, 0, len(text), habits_of(language, text)), len(text)]
    assert "|".join(text[a:b] for a, b in pairwise(cuts)) == marked


@pytest.mark.parametrize("language", MARKED)
def test_the_language_is_told_from_the_text(language: str) -> None:
    assert guess(" ".join(MARKED[language]).replace("|", "")) == language
    assert habits_of("auto", " ".join(MARKED[language])) is HABITS.get(language, HABITS["english"])


def test_nothing_to_tell_a_language_from() -> None:
    assert guess("") == guess("123 !?") == "english"
    assert habits_of("German", "English text, this is") is HABITS["german"]


# --- pieces ---------------------------------------------------------------------------------------


def joined(pieces) -> str:
    return "".join(p.before + p.text + p.after for p in pieces)


def texts_of(text: str, **arguments) -> list[str]:
    return [piece.text for piece in split(text, **arguments)]


def test_short_sentences_are_joined_up_to_the_target() -> None:
    text = "One sentence here. " * 40
    pieces = split(text)
    assert joined(pieces) == text
    for piece in pieces:
        assert piece.text.endswith(".")
        assert 9_000 < milliseconds(piece.text) < 15_000
    assert [p.ends for p in pieces] == [Break.SENTENCE] * (len(pieces) - 1) + [Break.PARAGRAPH]


def test_pieces_are_about_equally_long() -> None:
    """Not twelve seconds and a word."""
    lengths = [milliseconds(t) for t in texts_of("This is the house that Jack built. " * 13)]
    assert len(lengths) == 3
    assert max(lengths) < 1.3 * min(lengths)


def test_a_long_sentence_is_cut_at_clauses() -> None:
    text = "and he went on, " * 60
    pieces = split(text.strip() + ".")
    assert len(pieces) > 3
    assert all(p.text.startswith("and") and p.text.endswith("on,") for p in pieces[:-1])
    assert {p.ends for p in pieces[:-1]} == {Break.CLAUSE}


def test_a_long_clause_is_cut_at_words() -> None:
    pieces = split("buffalo " * 100)
    assert all(set(p.text.split()) == {"buffalo"} for p in pieces)
    assert {p.ends for p in pieces[:-1]} == {Break.WORD}


def test_a_word_without_end_is_cut_anywhere_but_not_before_a_mark() -> None:
    word = "ne\u0301" * 500
    pieces = split(word)
    assert joined(pieces) == word
    assert len(pieces) > 3
    assert all(unicodedata.combining(p.text[0]) == 0 for p in pieces)


def test_chinese_and_japanese_lines_begin_as_they_may() -> None:
    pieces = split("ちょっとしたことでもきっとシャッターを" * 30)
    assert len(pieces) > 3
    assert all(p.text[0] not in "ょっャッーを" or p.text[0] == "を" for p in pieces)


def test_a_quotation_stays_whole_while_it_can() -> None:
    quote = "He said: “This is one. This is two. This is three.” "
    assert [t for t in texts_of(quote * 8) if not t.endswith("”")] == []
    long = "“" + "This is one of them. " * 40 + "”"
    assert all(t.rstrip("”").rstrip().endswith(".") for t in texts_of(long))
    assert len(texts_of(long)) > 3


def test_an_unclosed_quotation_changes_nothing() -> None:
    plain = "This is one. This is two. " * 30
    assert texts_of("“ (" + plain)[1:] == texts_of("x x" + plain)[1:]


def test_paragraphs_are_never_joined() -> None:
    pieces = split("Title\n\nHello there.\n \nYes.\r\n\r\n* * *\n\nNo.")
    assert [p.text for p in pieces] == ["Title", "Hello there.", "Yes.", "* * *", "No."]
    assert {p.ends for p in pieces} == {Break.PARAGRAPH}
    assert [p.has_words for p in pieces] == [True, True, True, False, True]


def test_single_line_ends() -> None:
    long = "It was the best of times, it was the worst of times, as they\nSay, and so on.\nIt was good.\n\nEnd."
    assert texts_of(long) == [long.partition("\n\n")[0], "End."]
    # without blank lines each line is a paragraph
    assert [(p.text, p.ends) for p in split("One line.\nAnother.\nA heading\nwith its end\nText.")] == [
        ("One line.", Break.PARAGRAPH),
        ("Another.", Break.PARAGRAPH),
        ("A heading\nwith its end", Break.SENTENCE),
        ("Text.", Break.PARAGRAPH),
    ]
    assert texts_of("To buy:\n- apples\n- pears\n2. Eat") == ["To buy:", "- apples", "- pears", "2. Eat"]


def test_what_is_spoken_is_one_line() -> None:
    (piece,) = split("A wrapped\r\nline of  text\t and so on goes here to the very end of it.\n")
    assert piece.spoken == "A wrapped line of text and so on goes here to the very end of it."
    chinese = "这是一个很长的段落，被切成了好几行，每一行都有很多字，但是它\n们属于同一个句子。"
    assert split(chinese)[0].spoken == chinese.replace("\n", "")


def test_white_space_is_reported() -> None:
    pieces = split(" \n Hello.\n\n  There. \n")
    assert [(p.before, p.text, p.after) for p in pieces] == [
        (" \n ", "Hello.", "\n\n  "),
        ("", "There.", " \n"),
    ]
    assert split(" \n\t ") == split("") == []


@pytest.mark.parametrize(("target", "longest"), [(0.5, 9), (10, 9), (float("nan"), 9), (-1, -1)])
def test_lengths_that_make_no_sense(target: float, longest: float) -> None:
    with pytest.raises(RequestError, match="the target must be"):
        split("Hello.", target=target, longest=longest)


ALPHABET = st.sampled_from(
    [*"aB1. .!?…,;:\n\r\t \u00a0\u3000\"'“”„«»()[]—-。！？、「」你好のっ가 яЯ%\u0301😀*", "Dr.", "z. B. "]
)
PROSE = st.sampled_from([text.replace("|", "") for texts in MARKED.values() for text in texts] + ["\n", "\n\n", " "])


@given(
    st.lists(ALPHABET, max_size=200).map("".join) | st.lists(PROSE, max_size=30).map("".join) | st.text(max_size=60),
    st.sampled_from(["auto", *MARKED]),
    st.floats(1, 10),
    st.floats(0, 10),
)
def test_nothing_is_lost_and_nothing_is_too_long(text: str, language: str, target: float, more: float) -> None:
    text = text.encode("utf-8", "ignore").decode("utf-8")
    pieces = split(text, language, target, target + more)
    assert joined(pieces) == text if text.strip() else pieces == []
    for piece in pieces:
        assert piece.text == piece.text.strip() != ""
        assert piece.after.strip() == piece.before.strip() == ""
        assert milliseconds(piece.text) <= 1000 * (target + more) + 1
        assert "\n" not in piece.spoken
        assert "".join(piece.spoken.split()) == "".join(piece.text.split())


@given(st.text(max_size=50), st.text(max_size=50))
def test_length_is_additive_and_bounded(a: str, b: str) -> None:
    assert milliseconds(a + b) == milliseconds(a) + milliseconds(b)
    assert most_milliseconds(a) >= 2000 + 3 * milliseconds(a)


@pytest.mark.parametrize(
    "text", ["", "They walked along the river, slowly; nobody spoke!", "你好，世界。", "こんにちは、안녕?"]
)
def test_ordinary_words_take_at_most_three_times_as_long_and_two_seconds(text: str) -> None:
    assert most_milliseconds(text) == 2000 + 3 * milliseconds(text)


@pytest.mark.parametrize(
    ("text", "at_least", "at_most"),
    [
        ("It was the best of times, it was the worst of times.", 2.5, 5),  # 12 words
        ("Восемьдесят километров до ближайшего города, и ни одной деревни.", 3.5, 6.5),
        ("这是一个很长的段落，被切成了好几行。", 3, 5),
        ("これはとてもながいぶんしょうです。", 1.8, 3.5),
        ("안녕하세요, 만나서 반갑습니다.", 2, 4),
        ("1234567890", 2, 4),
    ],
)
def test_lengths_are_those_of_calm_reading(text: str, at_least: float, at_most: float) -> None:
    assert at_least <= milliseconds(text) / 1000 <= at_most


@pytest.mark.parametrize("unit", ["(", '"', "“", ". ", "! “", "«»", "a.b.", "\n", "x\n", "\u0301", ". . ", "、", "I. "])
def test_strange_texts_take_no_longer_than_others(unit: str) -> None:
    """50,000 characters; anything quadratic would take minutes."""
    text = unit * (50_000 // len(unit))
    assert joined(split(text)) == (text if text.strip() else "")
