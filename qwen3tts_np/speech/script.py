"""A text as it is to be spoken: spans with their voices and silences, the cast, and the respelling of words.

    script = read_script(text, markup=True, cast=read_cast("cast.json"), lexicon=read_lexicon("words.json"))
    narrate(model, script, "play.wav")

A text without marks is one span, and a script of it is spoken exactly as the text alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..arguments import require_text
from ..errors import RequestError
from ..model import Qwen3TTSModel
from ..request import CustomVoice, Voice
from ..shown import shortened
from ..text.clean import clean
from ..text.lexicon import Lexicon
from ..text.markup import LONGEST_PAUSE, read_marks
from ..text.spans import Span
from ..text.ssml import is_ssml, read_ssml

Cast = Mapping[str, Mapping[str, Any]]  # name -> arguments of ``model.voice``; "own" is what its kind of model takes
NO_WORDS = "there is nothing to say: the text has neither letters nor digits"
OWN = "own"  # a cast's short form: a speaker, a voice file or a description, as the model is
OWN_ARGUMENT = {"custom_voice": "speaker", "voice_design": "instruct", "base": "voice_clone_prompt"}


@dataclass(frozen=True)
class Script:
    """Spans, and what their names and words mean. RequestError where silence lasts more than a minute."""

    spans: tuple[Span, ...]
    cast: Cast = field(default_factory=dict)
    lexicon: Lexicon | None = None

    def __post_init__(self) -> None:
        silence = 0
        for span in self.spans:
            silence += span.silence or 0
            if silence > LONGEST_PAUSE:
                raise RequestError(
                    f"pauses add up to {silence / 1000:g} s of silence; {LONGEST_PAUSE / 1000:g} s are the most"
                )
            if has_words(span.text):
                silence = 0

    @property
    def text(self) -> str:
        """All words, without marks."""
        return "".join(span.text for span in self.spans)

    @property
    def names(self) -> set[str]:
        """The voices that are named."""
        return {span.voice for span in self.spans if span.voice is not None}

    def respelled(self, text: str) -> str:
        """``text`` as the model is to read it."""
        return text if self.lexicon is None else self.lexicon.respelled(text)

    def rewritten(self, change: Callable[[str], str]) -> Script:
        """With ``change`` made to the words of each span, respelled, for a model that reads other words."""
        spans = (
            replace(span, text=change(self.respelled(span.text))) if has_words(span.text) else span
            for span in self.spans
        )
        return replace(self, spans=tuple(spans), lexicon=None)

    def voice(self, model: Qwen3TTSModel, name: str, usual: Voice) -> Voice:
        """The voice of a name: of the cast, or of the model's table. RequestError where it is in neither.

        ``usual`` is the request's own voice, whose instruction a speaker without one of their own follows.
        """
        kind = model.config.tts_model_type
        speakers = model.get_supported_speakers() if kind == "custom_voice" else []
        if name in self.cast:
            arguments = {OWN_ARGUMENT[kind] if key == OWN else key: value for key, value in self.cast[name].items()}
        elif name.lower() in speakers:
            arguments = {"speaker": name}
        else:
            known = ", ".join([*self.cast, *speakers]) or "nobody"
            raise RequestError(f"voice {shortened(name)} is not known; there is {known}")
        if isinstance(usual, CustomVoice) and usual.instruct:
            arguments = {"instruct": usual.instruct, **arguments}
        try:
            return model.voice(**arguments)
        except RequestError as e:
            raise RequestError(f"voice {shortened(name)}: {e}") from None


def as_script(text: str | Script) -> Script:
    """``text`` as one span; a script as it is. RequestError for what is neither."""
    if isinstance(text, Script):
        return text
    require_text(text, "text")
    return Script((Span(text),))


def read_script(text: str, markup: bool = False, cast: Cast | None = None, lexicon: Lexicon | None = None) -> Script:
    """The script of a text, cleaned. Marks are read where ``markup`` or a cast asks for it (``text/markup.py``).

    RequestError for a mark that cannot be read, and for a text without words.
    """
    cleaned = clean(text)
    if not markup and cast is None:
        spans = [Span(cleaned)]
    elif is_ssml(cleaned):
        spans = read_ssml(cleaned)
    else:
        spans = read_marks(cleaned, cast or ())
    script = Script(tuple(spans), cast or {}, lexicon)
    if not has_words(script.text):
        raise RequestError(NO_WORDS)
    return script


def has_words(text: str) -> bool:
    """Whether there is anything to say."""
    return any(c.isalnum() for c in text)
