"""Long texts: a book becomes one audio file, and an interruption costs none of its finished pieces.

The text is split into pieces (``plan.py``), several pieces are spoken at a time (``recorder.py``), and each is
appended as soon as those before it are finished (``track.py``), so memory does not grow with the text. Finished
pieces are kept (``store.py``), so a run that was killed resumes with the same result.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..arguments import callback, path_of, require_type, whole_number
from ..audio.loudness import MOST_SECONDS, check_loudness
from ..audio.tempo import check_tempo
from ..errors import RequestError
from ..files.output import write_text
from ..model import Qwen3TTSModel
from ..talker.generator import check_seed, fresh_seed
from ..text.pace import milliseconds
from ..text.sentences import LONGEST, TARGET
from .delivery import Delivery, warn_of_designed_voices
from .plan import PlannedPiece, plan
from .recorder import Writing, recordings
from .script import Script, as_script
from .spoken import Spoken, shown
from .store import Store, fingerprint, hash_of, pieces_folder
from .subtitles import CUE, SUBTITLE_FORMATS, subtitle_file
from .take import Take, takes_of
from .track import Track, open_track


@dataclass(frozen=True)
class Narration:
    """The result of :func:`narrate`."""

    seconds: float
    sample_rate: int
    pieces: list[Spoken]
    reused: int  # pieces that an earlier run had finished
    seed: int  # of the text


@dataclass(frozen=True)
class Progress:
    """The progress of :func:`narrate`."""

    pieces: int  # written
    all_pieces: int
    seconds: float  # of audio
    share: float  # of the text, 0 to 1
    reused: float  # of the text, what an earlier run had finished


def narrate(
    model: Qwen3TTSModel,
    text: str | Script,
    output: str | os.PathLike[str],
    *,
    seed: int | None = None,
    work: str | os.PathLike[str] | None = None,
    batch_size: int = 4,
    target: float = TARGET,
    longest: float = LONGEST,
    subtitles: Sequence[str | os.PathLike[str]] = (),
    base_model: Qwen3TTSModel | None = None,
    runaway_guard: bool = False,
    tempo: float = 1.0,
    loudness: float | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    writing: Writing = lambda texts: None,
    **speech: Any,
) -> Narration:
    """Speak a text of any length into ``output``, whose suffix names the format (.wav is 16-bit PCM).

    A ``Script`` (``script.py``) is a text with pauses, several voices, or respelled words.

    ``speech``: the arguments of the model's ``generate_*`` method (speaker, instruct, ref_audio, language, sampling
    ...), one value each, for all pieces. ``target``, ``longest``: seconds of speech in a piece (``text.sentences``).
    ``subtitles``: .srt and .vtt files to write as well. A custom-voice or base model keeps its voice from piece to
    piece; a voice-design model does not, unless a ``base_model`` clones what it designed: then the first piece that
    lasts some seconds is its reference. Without one all pieces have the seed itself, which keeps voices alike at best.

    ``seed``: piece i has the seed ``plan.seed_of(seed, i)``, so a text of one piece has the codes of ``generate_*``
    with this seed, and every piece those of ``speech.live.stream``. A text of one piece is written as it is; the pieces
    of a longer one are trimmed, faded and joined by pauses. Samples are those of the exact streaming decode.

    ``work``: the folder of finished pieces. By default it is ``OUTPUT.pieces``, which is removed at the end; one that
    is named stays. Run again after an interruption: with the same arguments the file gets the same bytes (.wav, .flac)
    as without one. A seed that is drawn is kept there. Nothing is found at ``output`` before it is complete.

    ``runaway_guard``: a piece that lasts longer than any reading of its words
    (``pace.most_milliseconds``) is tried again with another seed, twice at most, with a warning. If none of them stops
    the first is kept, cut there. Greedy speech is cut at once.

    ``tempo``: 0.25 to 4, how much faster, at the same pitch (extra ``tempo``). Pauses of marks keep their length.
    ``loudness``: -50 to -5 LUFS, for speech of up to an hour (``audio/loudness.py``, extra ``loudness``).

    ``progress`` is called after every piece that is written, ``writing`` after every frame with the texts that are
    being spoken and the frames of each so far. RequestError for whatever the model, the text or the disk cannot do.
    """
    target_file, subtitle_files = path_of(output, "output"), [subtitle_file(path_of(p, "subtitles")) for p in subtitles]
    work = None if work is None else path_of(work, "work")
    progress = callback(progress, "progress") or (lambda _: None)
    writing = callback(writing, "writing") or (lambda _: None)
    _check(model, seed, batch_size, base_model)
    script, tempo = as_script(text), check_tempo(tempo)
    pieces = plan(script, speech.get("language"), target, longest, tempo)
    delivery = Delivery.of(model, speech, runaway_guard, tempo)
    if loudness is not None:
        loudness = measurable(check_loudness(loudness), pieces, tempo)
    takes = takes_of(script, pieces, delivery, 0)  # what the model does not have is said now
    if base_model is not None and script.names:
        raise RequestError("base_model clones one designed voice, and this text names others")
    resumable = (
        work is not None or len(pieces) > 1 or base_model is not None
    )  # a single piece has nothing to resume from
    store = Store(pieces_folder(target_file) if work is None else work) if resumable else None
    if seed is None:
        seed = fresh_seed() if store is None else store.seed(_job(takes, base_model))
    takes = [replace(take, seed=seed) for take in takes]
    with open_track(target_file, delivery.sample_rate, loudness) as track:
        takes = _with_designed_voice(takes, store, base_model, speech, writing)
        spoken, reused = _speak_all(takes, store, track, batch_size, progress, writing)
    for path in subtitle_files:
        write_text(path, SUBTITLE_FORMATS[path.suffix.lower()](spoken, speech.get("language") or "auto"))
    if work is None and store is not None:
        store.remove()
    return Narration(track.seconds, delivery.sample_rate, spoken, reused, seed)


def _check(model: Qwen3TTSModel, seed: int | None, batch_size: int, base_model: Qwen3TTSModel | None) -> None:
    """RequestError for what can be known to be wrong before the text is read."""
    if seed is not None:
        check_seed(seed)
    whole_number(batch_size, "batch_size")
    require_type(model, Qwen3TTSModel, "model")
    if base_model is not None:
        require_type(base_model, Qwen3TTSModel, "base_model")
    if base_model is not None and model.config.tts_model_type != "voice_design":
        raise RequestError(f"base_model goes with a voice_design model; this is a {model.config.tts_model_type} model")


def measurable(loudness: float, pieces: Sequence[PlannedPiece], tempo: float) -> float:
    """``loudness``. RequestError for a text whose speech is too long to be measured as a whole."""
    seconds = sum(milliseconds(piece.text) / tempo + piece.pause + piece.after for piece in pieces) / 1000
    if seconds > MOST_SECONDS:
        raise RequestError(
            f"the text takes about {seconds / 3600:.1f} h to speak, and a loudness is for speech of up to "
            f"{MOST_SECONDS / 3600:g} h: speak it in parts, or give the file a loudness with another program"
        )
    return loudness


def _job(takes: list[Take], base_model: Qwen3TTSModel | None) -> str:
    """A hash of the task, the key of its seed where none was given."""
    delivery, pieces = takes[0].delivery, [take.piece for take in takes]
    voices = {take.piece.voice or "": take.delivery.voice for take in takes}
    base = None if base_model is None else fingerprint(base_model)
    how = (voices, delivery.language, delivery.streaming, delivery.sampling, delivery.runaway_guard)
    return hash_of(delivery.fingerprint, base, how, pieces)


def _with_designed_voice(
    takes: list[Take],
    store: Store | None,
    base_model: Qwen3TTSModel | None,
    speech: Mapping[str, Any],
    writing: Writing,
) -> list[Take]:
    """``takes`` with the voice of one of them, which is spoken as designed; all others clone it with ``base_model``."""
    if base_model is None:
        warn_of_designed_voices([take.delivery for take in takes])
        return takes
    enough = (i for i, take in enumerate(takes) if milliseconds(take.piece.text) >= 1000 * CUE)
    chosen = next(enough, max(range(len(takes)), key=lambda i: milliseconds(takes[i].piece.text)))
    take = takes[chosen]
    reference = replace(take, delivery=replace(take.delivery, tempo=1.0))
    ((recording, _),) = recordings([reference], store, 1, writing)
    if not len(recording.samples):
        raise RequestError(
            f"the designed voice said nothing of {shown(take.piece.text)}; try another seed or description"
        )
    clip = (recording.samples, take.delivery.sample_rate)
    # Speech that was cut does not contain all of its text.
    words = {"ref_text": take.piece.text} if take.is_complete(recording.frames) else {"x_vector_only_mode": True}
    cloned = {name: value for name, value in speech.items() if name != "instruct"}
    delivery = Delivery.of(
        base_model, {**cloned, "ref_audio": clip, **words}, take.delivery.runaway_guard, take.delivery.tempo
    )
    return [t if i == chosen else replace(t, delivery=delivery) for i, t in enumerate(takes)]


def _speak_all(
    takes: list[Take],
    store: Store | None,
    track: Track,
    batch_size: int,
    progress: Callable[[Progress], None],
    writing: Writing,
) -> tuple[list[Spoken], int]:
    """Write all pieces and the pauses between them -> (their reports, the number that an earlier run had made)."""
    whole = sum(milliseconds(take.piece.text) for take in takes)
    spoken: list[Spoken] = []
    done = reused = reused_length = 0
    for take, (recording, found) in zip(takes, recordings(takes, store, batch_size, writing), strict=True):
        start = track.pause(take.piece.pause)
        end = track.append(recording.samples)
        spoken.append(take.report(recording.frames, recording.attempts, start, end))
        length = milliseconds(take.piece.text)
        done, reused, reused_length = done + length, reused + found, reused_length + found * length
        progress(Progress(len(spoken), len(takes), end, done / max(whole, 1), reused_length / max(whole, 1)))
    track.pause(takes[-1].piece.after)
    return spoken, reused
