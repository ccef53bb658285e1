"""Long texts: a book becomes one audio file, and an interruption costs none of its finished pieces.

The text is split into pieces (``text/sentences.py``), the pieces go through the model in batches, and each is written
behind the others as soon as it is there, so that memory does not grow with the text. Every piece is spoken with a seed
of its own, derived from the job's seed and the piece's words: what else is in the batch, and what came before it in the
text, does not change it. Finished pieces are kept in a folder under a hash of everything that makes them what they are,
so a run that was killed goes on where it was, with the same result, and a changed text costs only what changed.
"""

from __future__ import annotations

import hashlib
import html
import io
import json
import math
import os
import secrets
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from ..audio.files import format_of
from ..checkpoint.keys import Embedding
from ..checkpoint.writer import complete_file
from ..errors import RequestError
from ..model import Qwen3TTSModel
from ..text.pace import milliseconds, most_milliseconds
from ..text.sentences import LONGEST, TARGET, Break, Piece, split
from ..voice.prompt_item import VoiceClonePromptItem, voice_prompt_items

Pcm = NDArray[np.int16]  # [samples]
Writing = Callable[[list[str], int], None]

# Silence between two pieces, in ms. A piece without words ("* * *") adds its own.
PAUSES = {Break.WORD: 50, Break.CLAUSE: 150, Break.SENTENCE: 350, Break.PARAGRAPH: 800}
QUIET = 10 ** (-46 / 20)  # of the loudest sample of a piece; what is quieter at its edges is cut off
EDGE = 30  # ms of it that stay, for soft consonants and breath
FADE = 5  # ms at each edge, from and to zero
ATTEMPTS = 3  # the first, and two with other seeds, for a piece that does not stop
FORMAT = 1  # part of every key; other numbers mean pieces that are made in another way
CUE, LONGEST_CUE = 4.0, 6.0  # seconds of speech in a subtitle, usual and at most
SAMPLED_ROWS = 4096  # of a table, in a fingerprint: all of a code table
WAV_BYTES = 2**32 - 2**12  # the size in a WAV header has 32 bits


@dataclass(frozen=True)
class Spoken:
    """A piece of the finished file."""

    text: str
    start: float  # seconds
    end: float
    attempts: int
    complete: bool  # False: it never stopped by itself and was cut


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
    target_file, subtitle_files = Path(output), [_subtitle_file(Path(path)) for path in subtitles]
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

    store = _Store(Path(work) if work is not None else target_file.with_name(f"{target_file.name}.pieces"))
    voice = _Voice.of(model, speech, writing)
    base = None if base_model is None else _fingerprint(base_model)
    job = _hash(voice.identity, [piece.text for piece in pieces], base)
    designed_anew = model.config.tts_model_type == "voice_design" and base_model is None
    seed = store.seed(job) if seed is None else seed
    takes = _plan(pieces, voice, seed, one_seed=designed_anew)
    rate = model.speech_tokenizer.get_output_sample_rate()
    with _open_track(target_file, rate) as track:
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
        _write(path, _SUBTITLES[path.suffix.lower()](spoken, language).encode())
    if work is None:
        store.remove()
    return Narration(track.seconds, rate, spoken, reused, seed)


# --- what is to be spoken, and how ----------------------------------------------------------------


@dataclass(frozen=True)
class _Voice:
    """A model and all that its pieces share."""

    speak: Callable[..., Any]
    arguments: Mapping[str, Any]
    identity: str  # a hash of the model and the arguments
    most_frames: int
    frame_rate: float
    sample_rate: int
    writing: Writing

    @classmethod
    def of(
        cls, model: Qwen3TTSModel, speech: Mapping[str, Any], writing: Writing, fingerprint: str | None = None
    ) -> _Voice:
        arguments = {name: value for name, value in speech.items() if value is not None}
        kind = model.config.tts_model_type
        if kind == "base":
            arguments["voice_clone_prompt"] = _reference(model, arguments)
        for name, value in arguments.items():
            if isinstance(value, list):
                raise RequestError(f"{name} is a list; a long text takes one value for all its pieces")
        tokens = arguments.pop("max_new_tokens", model.generation_config.max_new_tokens)
        if not isinstance(tokens, int) or tokens < 1:
            raise RequestError(f"max_new_tokens={tokens!r} must be a whole number of at least 1")
        codec = model.speech_tokenizer
        return cls(
            speak=getattr(model, "generate_voice_clone" if kind == "base" else f"generate_{kind}"),
            arguments=arguments,
            identity=_hash(fingerprint or _fingerprint(model), arguments, tokens),
            most_frames=tokens - 1,
            frame_rate=codec.get_output_sample_rate() / codec.get_decode_upsample_rate(),
            sample_rate=codec.get_output_sample_rate(),
            writing=writing,
        )

    def __call__(self, texts: list[str], seeds: list[int], frames: int) -> list[tuple[NDArray[np.float32], int]]:
        """(waveform, frames) of each text, of at most ``frames`` frames."""
        waves, _, codes = self.speak(
            texts,
            seed=seeds,
            max_new_tokens=frames + 1,
            return_codes=True,
            progress=lambda count: self.writing(texts, count),
            **self.arguments,
        )
        return [(wave, len(code)) for wave, code in zip(waves, codes, strict=True)]


def _reference(model: Qwen3TTSModel, arguments: dict[str, Any]) -> VoiceClonePromptItem:
    """The one voice of a base model; the arguments of its clip are taken out of ``arguments``."""
    clip = {name: arguments.pop(name) for name in ("ref_audio", "ref_text", "x_vector_only_mode") if name in arguments}
    prompt = arguments.pop("voice_clone_prompt", None)
    if prompt is None and "ref_audio" not in clip:
        raise RequestError("give ref_audio or voice_clone_prompt: a base model has no voice of its own")
    items = voice_prompt_items(model.create_voice_clone_prompt(**clip) if prompt is None else prompt)
    if len(items) != 1:
        raise RequestError(f"voice_clone_prompt has {len(items)} voices; a long text takes one for all its pieces")
    return items[0]


@dataclass(frozen=True)
class _Take:
    """One piece to speak."""

    text: str
    voice: _Voice
    seeds: tuple[int, ...]  # [ATTEMPTS]

    @property
    def key(self) -> str:
        return _hash(FORMAT, self.voice.identity, self.text, self.seeds)

    @property
    def most_frames(self) -> int:
        return min(math.ceil(most_milliseconds(self.text) / 1000 * self.voice.frame_rate), self.voice.most_frames)


def _plan(pieces: list[Piece], voice: _Voice, seed: int, one_seed: bool) -> list[_Take]:
    """A take for each piece with words. The same words a second time have other seeds, and sound a little different,
    unless ``one_seed`` is to make one voice of all."""
    takes, times = [], Counter[str]()
    for piece in pieces:
        if piece.has_words:
            text = piece.spoken
            words = () if one_seed else (text, times[text])
            times[text] += 1
            takes.append(_Take(text, voice, tuple(_derived(seed, attempt, *words) for attempt in range(ATTEMPTS))))
    return takes


def _derived(*origin: Any) -> int:
    return int(_hash(*origin)[:8], 16)


def _with_designed_voice(
    takes: list[_Take], store: _Store, base_model: Qwen3TTSModel, fingerprint: str | None, speech: Mapping[str, Any]
) -> list[_Take]:
    """``takes`` with the voice of one of them, which is spoken as designed; all others clone it."""
    enough = (i for i, take in enumerate(takes) if milliseconds(take.text) >= 1000 * CUE)
    chosen = next(enough, max(range(len(takes)), key=lambda i: milliseconds(takes[i].text)))
    take = takes[chosen]
    recording = store.get(take.key)
    if recording is None:
        (recording,) = _speak([take])
        store.put(take.key, recording)
    if not len(recording.samples):
        raise RequestError(f"the designed voice said nothing of {_shown(take.text)}; try another seed or description")
    clip = (recording.samples, take.voice.sample_rate)
    # What was cut does not say all of its text.
    words = {"ref_text": take.text} if recording.complete else {"x_vector_only_mode": True}
    cloned = {name: value for name, value in speech.items() if name != "instruct"}
    voice = _Voice.of(base_model, {**cloned, "ref_audio": clip, **words}, take.voice.writing, fingerprint)
    return [t if i == chosen else replace(t, voice=voice) for i, t in enumerate(takes)]


# --- speaking -------------------------------------------------------------------------------------


class _Recording(NamedTuple):
    """A finished piece, its edges trimmed and faded."""

    samples: Pcm
    attempts: int
    complete: bool


def _speak_all(
    pieces: list[Piece],
    takes: list[_Take],
    store: _Store,
    track: _Track,
    batch_size: int,
    progress: Callable[[Progress], None],
) -> tuple[list[Spoken], int]:
    """Write all pieces and the pauses between them; also how many pieces were there already."""
    whole = sum(milliseconds(take.text) for take in takes)
    spoken: list[Spoken] = []
    done = reused = reused_length = pause = 0
    recordings = _recordings(takes, store, batch_size)
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
        f"{_shown(piece.text)} did not stop in {piece.attempts} attempts; it was cut after "
        f"{piece.end - piece.start:.1f} s, {piece.start:.1f} s from the beginning",
        stacklevel=4,
    )


def _recordings(takes: list[_Take], store: _Store, batch_size: int) -> Iterator[tuple[_Take, _Recording, bool]]:
    """(take, recording, whether it was in the store) in order; no more than a batch of them is held at once."""
    for first in range(0, len(takes), batch_size):
        batch = takes[first : first + batch_size]
        found = [store.get(take.key) for take in batch]
        missing = [take for take, recording in zip(batch, found, strict=True) if recording is None]
        made = _speak(missing) if missing else []
        for take, recording in zip(missing, made, strict=True):
            store.put(take.key, recording)
        in_turn = iter(made)
        for take, kept in zip(batch, found, strict=True):
            yield take, next(in_turn) if kept is None else kept, take.key not in store.made


def _speak(takes: list[_Take]) -> list[_Recording]:
    """The recordings of a batch of one voice."""
    voice = takes[0].voice
    first = voice([take.text for take in takes], [take.seeds[0] for take in takes], max(t.most_frames for t in takes))
    return [_recording(take, wave, frames) for take, (wave, frames) in zip(takes, first, strict=True)]


def _recording(take: _Take, wave: NDArray[np.float32], frames: int) -> _Recording:
    """The first attempt at a piece, or the others if that did not stop.

    Those are made alone, so the last, which is kept in any case, is cut at the piece's own limit, not the batch's.
    """
    attempt = 1
    while frames >= take.most_frames and attempt < ATTEMPTS:
        ((wave, frames),) = take.voice([take.text], [take.seeds[attempt]], take.most_frames)
        attempt += 1
    return _Recording(_finish(wave, take.voice.sample_rate), attempt, frames < take.most_frames)


def _finish(wave: NDArray[np.float32], rate: int) -> Pcm:
    """A waveform without the silence at its edges, faded in and out, as 16-bit samples."""
    loudness = np.abs(wave)
    loud = np.flatnonzero(loudness > QUIET * loudness.max(initial=0))
    if not len(loud):
        return np.zeros(0, np.int16)
    edge = rate * EDGE // 1000
    kept = wave[max(loud[0] - edge, 0) : loud[-1] + 1 + edge].astype(np.float64)
    length = min(rate * FADE // 1000, len(kept) // 2)
    fade = 0.5 - 0.5 * np.cos(np.pi * np.arange(length) / max(length, 1))  # from 0
    kept[:length] *= fade
    kept[len(kept) - length :] *= fade[::-1]
    return np.rint(np.clip(kept, -1, 1) * 32767).astype(np.int16)


# --- keys -----------------------------------------------------------------------------------------


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, default=_as_json, sort_keys=True).encode()).hexdigest()


def _as_json(value: Any) -> Any:
    if isinstance(value, VoiceClonePromptItem):
        code = None if value.ref_code is None else value.ref_code.tolist()
        embedding = np.asarray(value.ref_spk_embedding, np.float64).tolist()
        return [embedding, code, value.x_vector_only_mode, value.icl_mode, value.ref_text]
    return repr(value)


def _fingerprint(model: Qwen3TTSModel) -> str:
    """A hash of whatever of a model can change what it says. It reads all weights once, at the speed of memory."""
    parts = (model.backend, model.speech_tokenizer, model.speaker_encoder)
    sums = [[list(array.shape), array.dtype.str, _sum(array)] for array in _arrays(parts)]
    words = model.text_tokenizer.encode("iPhone 3.5 naïve 你好")  # tells the pre-tokenizers apart
    return _hash(asdict(model.config), asdict(model.generation_config), words, sums)


def _arrays(part: Any) -> Iterator[NDArray[Any]]:
    """All arrays below a tree of dataclasses and tuples; of the text embedding, which is left on disk, some rows."""
    if isinstance(part, np.ndarray):
        yield part
    elif isinstance(part, Embedding):
        rows = part.tensor.data.shape[0]
        yield part[np.linspace(0, rows - 1, min(rows, SAMPLED_ROWS)).astype(np.int64)]
    elif isinstance(part, tuple):
        for member in part:
            yield from _arrays(member)
    elif is_dataclass(part):
        for f in fields(part):
            yield from _arrays(getattr(part, f.name))


def _sum(array: NDArray[Any]) -> int:
    """The sum of an array's bytes, eight at a time: no single change leaves it as it was."""
    raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    whole = len(raw) // 8 * 8
    return int(np.add.reduce(raw[:whole].view(np.uint64), dtype=np.uint64)) + int(raw[whole:].sum(dtype=np.uint64))


# --- files ----------------------------------------------------------------------------------------


class _Store:
    """A folder of finished pieces, each found by its key, complete or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._first: tuple[str, bytes] | None = None  # to be written before any piece
        self.made: set[str] = set()  # in this run

    def get(self, key: str) -> _Recording | None:
        """A finished piece. One that is damaged, as only a failing disk can make it, is as good as none."""
        try:
            with np.load(self._folder / f"{key}.npz", allow_pickle=False) as stored:
                return _Recording(stored["samples"], int(stored["attempts"]), bool(stored["complete"]))
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error):
            return None

    def put(self, key: str, recording: _Recording) -> None:
        if self._first is not None:
            self._write(*self._first)
            self._first = None
        content = io.BytesIO()
        np.savez(content, **recording._asdict())
        self._write(f"{key}.npz", content.getvalue())
        self.made.add(key)

    def seed(self, job: str) -> int:
        """The seed of a job that was given none: drawn when it first ran, and kept from its first piece on."""
        path = self._folder / f"{job}.seed"
        try:
            return int(path.read_bytes())
        except FileNotFoundError:
            drawn = secrets.randbits(32)
            self._first = (path.name, b"%d" % drawn)
            return drawn
        except (OSError, ValueError):
            raise RequestError(f"{path} cannot be read; remove it, or give a seed") from None

    def remove(self) -> None:
        """Forget all pieces, and the folder if nothing else is in it."""
        for pattern in ("*.npz", "*.seed", ".*.partial"):  # the last where a killed run was just writing
            for path in self._folder.glob(pattern):
                path.unlink(missing_ok=True)
        if not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _write(self, name: str, content: bytes) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise RequestError(f"{self._folder} cannot be made: {e.strerror}") from None
        _write(self._folder / name, content)


class _Track:
    """An audio file that grows at its end."""

    def __init__(self, file: soundfile.SoundFile, path: Path) -> None:
        self._file, self._path, self._samples = file, path, 0
        self._most = WAV_BYTES // 2 if file.format == "WAV" else None

    @property
    def seconds(self) -> float:
        return float(self._samples / self._file.samplerate)

    def append(self, samples: Pcm) -> float:
        """Write ``samples`` and return the time in seconds at which they end."""
        self._samples += len(samples)
        if self._most is not None and self._samples > self._most:
            hours = self._most / self._file.samplerate / 3600
            raise RequestError(
                f"{self._path}: a WAV file holds {hours:.0f} hours; write .flac, finished pieces are kept"
            )
        try:
            self._file.write(samples)
        except (soundfile.LibsndfileError, AssertionError) as e:  # soundfile asserts that everything was written
            raise _cannot_write(self._path, e) from None
        return self.seconds

    def pause(self, ms: int) -> float:
        return self.append(np.zeros(self._file.samplerate * ms // 1000, np.int16))


@contextmanager
def _open_track(target: Path, rate: int) -> Iterator[_Track]:
    """A track that becomes ``target`` once it is complete. What a killed run has left is written over."""
    audio_format = format_of(target)
    partial = target.with_name(f".{target.name}.partial")
    try:
        with _open(partial, target, rate, audio_format) as file:
            yield _Track(file, target)
        try:
            os.replace(partial, target)
        except OSError as e:
            raise _cannot_write(target, e) from None
    finally:
        partial.unlink(missing_ok=True)


def _open(partial: Path, target: Path, rate: int, audio_format: str) -> soundfile.SoundFile:
    try:
        partial.open("wb").close()  # libsndfile's "System error" says less than Python's
        return soundfile.SoundFile(partial, "w", rate, 1, format=audio_format)
    except (OSError, soundfile.LibsndfileError, TypeError) as e:  # TypeError: a format without a usual encoding
        raise _cannot_write(target, e) from None


def _write(path: Path, content: bytes) -> None:
    """Write a file under another name first; it survives a power cut once this has returned."""
    try:
        with complete_file(path) as partial, partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as e:
        raise _cannot_write(path, e) from None


def _cannot_write(path: Path, error: Exception) -> RequestError:
    reason = getattr(error, "strerror", None) or getattr(error, "error_string", None) or "is the disk full?"
    return RequestError(f"{path} cannot be written: {reason}")


# --- subtitles ------------------------------------------------------------------------------------


def _srt(spoken: list[Spoken], language: str) -> str:
    cues = enumerate(_cues(spoken, language), start=1)
    return "".join(f"{i}\n{_time(a, ',')} --> {_time(b, ',')}\n{text}\n\n" for i, (a, b, text) in cues)


def _vtt(spoken: list[Spoken], language: str) -> str:
    cues = _cues(spoken, language)
    escaped = ((a, b, html.escape(text, quote=False)) for a, b, text in cues)
    return "WEBVTT\n\n" + "".join(f"{_time(a, '.')} --> {_time(b, '.')}\n{text}\n\n" for a, b, text in escaped)


_SUBTITLES = {".srt": _srt, ".vtt": _vtt}


def _subtitle_file(path: Path) -> Path:
    if path.suffix.lower() not in _SUBTITLES:
        raise RequestError(f"{path}: subtitles are .srt or .vtt files")
    if not path.parent.is_dir():
        raise RequestError(f"{path} cannot be written: {path.parent} is no directory")
    return path


def _cues(spoken: list[Spoken], language: str) -> Iterator[tuple[float, float, str]]:
    """(start, end, text) in seconds. The times of pieces are exact, those in a piece are its share of the words."""
    for piece in spoken:
        parts = [part.spoken for part in split(piece.text, language, CUE, LONGEST_CUE)]
        lengths = [milliseconds(part) for part in parts]
        per_ms = (piece.end - piece.start) / sum(lengths)
        ends = list(accumulate(lengths, initial=0))
        for part, a, b in zip(parts, ends, ends[1:], strict=False):
            yield piece.start + per_ms * a, piece.start + per_ms * b, part


def _time(seconds: float, point: str) -> str:
    whole, ms = divmod(round(1000 * seconds), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{ms:03}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 50 else f"{text[:50]}...")
