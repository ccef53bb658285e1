"""Long texts: a book becomes one audio file, and an interruption costs none of its finished pieces.

The text is split into pieces (``text/sentences.py``), the pieces go through the model in batches, and each is written
behind the others as soon as it is there, so that memory does not grow with the text. Every piece is spoken with a seed
of its own, derived from the job's seed and the piece's words: what else is in the batch, and what came before it in the
text, does not change it. Finished pieces are kept in a folder under a hash of everything that makes them what they are,
so a run that was killed goes on where it was, with the same result, and a changed text costs only what changed.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..files.output import write_text
from ..model import Qwen3TTSModel
from ..text.pace import milliseconds
from ..text.sentences import LONGEST, TARGET, Piece, split
from .plan import PAUSES, plan
from .store import Store, fingerprint, hash_of
from .subtitles import CUE, SUBTITLE_FORMATS, subtitle_file
from .take import Take, Voice, Writing, recordings_of, shown, speak
from .track import Spoken, Track, open_track


@dataclass(frozen=True)
class Narration:
    """What :func:`narrate` made."""

    seconds: float
    sample_rate: int
    pieces: list[Spoken]
    reused: int  # pieces that an earlier run had finished
    seed: int


@dataclass(frozen=True)
class Progress:
    """How far a job is."""

    pieces: int  # written
    all_pieces: int
    seconds: float  # of audio
    share: float  # of the text, 0 to 1
    reused: float  # of the text, what an earlier run had finished


def narrate(
    model: Qwen3TTSModel,
    text: str,
    output: str | os.PathLike[str],
    *,
    seed: int | None = None,
    work: str | os.PathLike[str] | None = None,
    batch_size: int = 4,
    target: float = TARGET,
    longest: float = LONGEST,
    subtitles: Sequence[str | os.PathLike[str]] = (),
    base_model: Qwen3TTSModel | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    writing: Writing = lambda texts, frames: None,
    **speech: Any,
) -> Narration:
    """Speak a text of any length into ``output``, whose suffix names the format (.wav is 16-bit PCM).

    ``speech``: the arguments of the model's ``generate_*`` method (speaker, instruct, ref_audio, language, sampling
    ...), one value each, for all pieces. ``target``, ``longest``: seconds of speech in a piece (``text.sentences``).
    ``subtitles``: .srt and .vtt files to write as well. A custom-voice or base model keeps its voice from piece to
    piece; a voice-design model does not, unless a ``base_model`` clones what it designed: then the first piece that
    lasts some seconds is its reference. Without one all pieces share a seed, which keeps voices alike at best.

    ``work``: the folder of finished pieces. By default it is ``OUTPUT.pieces``, which is removed at the end; one that
    is named stays. Run again after an interruption: with the same arguments the file gets the same bytes (.wav, .flac)
    as without one. Where ``seed`` is None one is drawn and kept there. Nothing is found at ``output`` before it is
    complete.

    A piece that is not over after a time that no speech of its words could take (``pace.most_milliseconds``), or after
    ``max_new_tokens``, is tried again with another seed, twice at most; then it is kept, cut there, with a warning.

    ``progress`` is called for every piece that is in the file, ``writing`` after every frame with the texts that are
    being spoken and the frames so far. RequestError for whatever the model, the text or the disk cannot do.
    """
    target_file, subtitle_files = Path(output), [subtitle_file(Path(path)) for path in subtitles]
    if seed is not None and not isinstance(seed, int):
        raise RequestError(f"seed={seed!r} must be a whole number, or None")
    if batch_size < 1:
        raise RequestError(f"batch_size={batch_size} must be at least 1")
    if base_model is not None and model.config.tts_model_type != "voice_design":
        raise RequestError(f"base_model goes with a voice_design model; this is a {model.config.tts_model_type} model")
    language = str(speech.get("language") or "auto")
    pieces = split(text, language, target, longest)
    if not any(piece.has_words for piece in pieces):
        raise RequestError("there is nothing to say: the text has neither letters nor digits")

    store = Store(Path(work) if work is not None else target_file.with_name(f"{target_file.name}.pieces"))
    voice = Voice.of(model, speech, writing)
    base = None if base_model is None else fingerprint(base_model)
    job = hash_of(voice.identity, [piece.text for piece in pieces], base)
    designed_anew = model.config.tts_model_type == "voice_design" and base_model is None
    seed = store.seed(job) if seed is None else seed
    takes = plan(pieces, voice, seed, one_seed=designed_anew)
    rate = model.speech_tokenizer.get_output_sample_rate()
    with open_track(target_file, rate) as track:
        if base_model is not None:
            takes = _with_designed_voice(takes, store, base_model, base, speech)
        elif designed_anew and len(takes) > 1:
            warnings.warn(
                f"a voice-design model designs the voice anew for each of the {len(takes)} pieces of this text; "
                "to keep it, make a voice of the description for a base model ('qwen3tts-np voice design')",
                stacklevel=2,
            )
        spoken, reused = _speak_all(pieces, takes, store, track, batch_size, progress)
    for path in subtitle_files:
        write_text(path, SUBTITLE_FORMATS[path.suffix.lower()](spoken, language))
    if work is None:
        store.remove()
    return Narration(track.seconds, rate, spoken, reused, seed)


def _with_designed_voice(
    takes: list[Take], store: Store, base_model: Qwen3TTSModel, base: str | None, speech: Mapping[str, Any]
) -> list[Take]:
    """``takes`` with the voice of one of them, which is spoken as designed; all others clone it."""
    enough = (i for i, take in enumerate(takes) if milliseconds(take.text) >= 1000 * CUE)
    chosen = next(enough, max(range(len(takes)), key=lambda i: milliseconds(takes[i].text)))
    take = takes[chosen]
    recording = store.get(take.key)
    if recording is None:
        (recording,) = speak([take])
        store.put(take.key, recording)
    if not len(recording.samples):
        raise RequestError(f"the designed voice said nothing of {shown(take.text)}; try another seed or description")
    clip = (recording.samples, take.voice.sample_rate)
    # What was cut does not say all of its text.
    words = {"ref_text": take.text} if recording.complete else {"x_vector_only_mode": True}
    cloned = {name: value for name, value in speech.items() if name != "instruct"}
    voice = Voice.of(base_model, {**cloned, "ref_audio": clip, **words}, take.voice.writing, base)
    return [t if i == chosen else replace(t, voice=voice) for i, t in enumerate(takes)]


def _speak_all(
    pieces: list[Piece],
    takes: list[Take],
    store: Store,
    track: Track,
    batch_size: int,
    progress: Callable[[Progress], None],
) -> tuple[list[Spoken], int]:
    """Write all pieces and the pauses between them; also how many pieces were there already."""
    whole = sum(milliseconds(take.text) for take in takes)
    spoken: list[Spoken] = []
    done = reused = reused_length = pause = 0
    recordings = recordings_of(takes, store, batch_size)
    for piece in pieces:
        if piece.has_words:
            take, recording, found = next(recordings)
            start = track.pause(pause) if spoken else 0.0
            end = track.append(recording.samples)
            spoken.append(Spoken(take.text, start, end, recording.attempts, recording.complete))
            pause, done = 0, done + milliseconds(take.text)
            reused, reused_length = reused + found, reused_length + found * milliseconds(take.text)
            if not recording.complete:
                _warn_of_cut(spoken[-1])
            progress(Progress(len(spoken), len(takes), end, done / max(whole, 1), reused_length / max(whole, 1)))
        pause += PAUSES[piece.ends]
    return spoken, reused


def _warn_of_cut(piece: Spoken) -> None:
    warnings.warn(
        f"{shown(piece.text)} did not stop in {piece.attempts} attempts; it was cut after "
        f"{piece.end - piece.start:.1f} s, {piece.start:.1f} s from the beginning",
        stacklevel=4,
    )
