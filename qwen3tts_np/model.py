"""Qwen3TTSModel: text to waveform, with the calls of the official class. READ FIRST, then ``generate.py``.

One request takes five steps: the text becomes token ids (``text/``), the ids, the speaker and the language become a
prompt (``text/prompt.py``), the talker and the code predictor turn it into codes (``generate.py``), the codec turns
those into samples (``codec/``). Cloning first turns the reference clip into a speaker embedding (``speaker/``) and,
in context, into codes (``codec/``).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qwen3tts_np_kernels.system import usable_cores
from threadpoolctl import threadpool_limits

from .audio.files import AudioLike, read_audio, resample
from .checkpoint.keys import check, load
from .checkpoint.pretrained import check_leftovers, compute_dtype, directory, runs_compiled
from .checkpoint.safetensors import Checkpoint
from .checkpoint.tables import SpeakerEncoderWeights, model_specs, speaker_encoder_sizes
from .compiled.engine import FORMATS, Backend, Compiled, Progress, Reference, stored_format
from .config import GenerationConfig, ModelConfig, read_generation_config, read_model_config
from .errors import ConfigError, RequestError
from .generate import Limits, Request
from .ops import Array, Ints
from .speaker.encoder import speaker_embedding
from .speech_tokenizer import Qwen3TTSTokenizer
from .streaming import Playback, SpeechSession, SpeechStream
from .talker.generator import make_generator
from .talker.sampling import SamplingParameters
from .text.feed import TextFeed
from .text.prompt import Prompt, Voice, build_prompt, supported_languages
from .text.templates import instruct_ids, reference_ids, text_ids
from .text.tokenizer import Pretokenizer, Tokenizer
from .voice.prompt_item import Fingerprint, VoiceClonePromptItem, check_fits, digest, voice_prompt_items
from .voice.reference_clip import warn_about_clip

if TYPE_CHECKING:
    from .compiled.speaker.encoder import FastSpeakerEncoder

Samples = NDArray[np.float32]  # mono, in [-1, 1]
Seed = int | Sequence[int | None] | None
# (waveforms, sample rate in Hz), and with return_codes=True the codes, [frames, G] each
Speech = tuple[list[Samples], int] | tuple[list[Samples], int, list[Ints]]


@dataclass(frozen=True)
class Utterance:
    """One item of a batch: what is said, with which voice, and how."""

    text: str
    voice: Voice
    instruct: str = ""
    x_vector: Array | None = None  # [H]


@dataclass(frozen=True)
class Qwen3TTSModel:
    """A checkpoint, ready to speak. Official: ``Qwen3TTSModel``.

    All ``generate_*`` methods take one text or a list of texts; every other per-item argument is one value for all of
    them or a list as long. They return the waveforms and the sample rate in Hz, and with ``return_codes=True`` also
    the codes [frames, G] of each. ``seed=s`` gives the codes that ``torch.manual_seed(s)`` gives the official
    package; ``seed=[s1, s2, ...]`` seeds each item on its own. The sampling arguments are those of
    ``GenerationConfig``, which holds what the checkpoint says about them. ``max_new_tokens=N`` gives at most N - 1
    frames, as it does officially. ``progress`` is called after every frame with the number of frames so far.
    RequestError says in one sentence what a model cannot do.

    The ``stream_*`` methods speak one text and hand out its samples packet by packet, ``packet_frames`` frames of 80 ms
    each, as they are made. The ``open_*`` methods begin a session to which the text itself comes piece by piece.
    """

    config: ModelConfig
    generation_config: GenerationConfig
    text_tokenizer: Tokenizer
    speech_tokenizer: Qwen3TTSTokenizer
    backend: Backend
    speaker_encoder: SpeakerEncoderWeights | None
    threads: int | None

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        dtype: Any = None,
        backend: str = "auto",
        weights_format: str = "auto",
        threads: int | None = None,
        pretokenizer: Pretokenizer = "native",
        cache_dir: str | Path | None = None,
        **torch_arguments: Any,
    ) -> Qwen3TTSModel:
        """Load a checkpoint directory.

        ``dtype``: what activations are computed in, float32 (default) or float64. ``backend``: "compiled" kernels,
        the NumPy "reference", or "auto", which compiles unless float64 is asked for or Numba's compiler is off.
        ``weights_format``: what the kernels multiply by: "auto" is the checkpoint's own format, which loses nothing;
        "int8" and "int4" are smaller, faster and approximate. ``threads``: how many are used, all cores by default.
        ``pretokenizer``: see ``text.tokenizer.Tokenizer``. ``path`` may be the name of a published model, which is
        downloaded to ``cache_dir``, or to where huggingface_hub keeps its files. Arguments that tell PyTorch where to
        run are accepted where they say "cpu" and otherwise refused or, if they change no result, ignored with a
        warning.
        """
        check_leftovers(torch_arguments)
        if threads is not None and threads < 1:
            raise RequestError(f"threads={threads} must be at least 1")
        folder, float_type = directory(path, cache_dir), compute_dtype(dtype)
        config = read_model_config(folder)
        checkpoint = Checkpoint.open(folder)
        check(checkpoint, model_specs(config))
        speech_tokenizer = Qwen3TTSTokenizer.from_pretrained(
            folder / "speech_tokenizer", dtype=float_type, backend=backend, threads=threads
        )
        writes, reads = config.talker_config.num_code_groups, speech_tokenizer.config.decoder_config.num_quantizers
        if writes != reads:
            raise ConfigError(f"{folder}: the talker writes {writes} codes a frame, speech_tokenizer reads {reads}")
        _ = speech_tokenizer.fast_decoder  # packed now: its file's pages are given back before the talker needs memory
        return cls(
            config=config,
            generation_config=read_generation_config(folder),
            text_tokenizer=Tokenizer.from_directory(folder, pretokenizer=pretokenizer),
            speech_tokenizer=speech_tokenizer,
            backend=_backend(checkpoint, config, backend, weights_format, float_type, threads),
            speaker_encoder=_load_speaker_encoder(checkpoint, config, float_type),
            threads=threads,
        )

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """What the voices of this model are made with; hashing them takes about 0.1 s, once."""
        encoder = self.speech_tokenizer.encoder.weights
        stored = (*encoder.semantic.codebooks, *encoder.acoustic.codebooks)[: self.config.talker_config.num_code_groups]
        return Fingerprint(
            model_size=self.config.tts_model_size,
            speaker_encoder=digest(self.speaker_encoder, np.float16),
            codebooks=digest(tuple((book.embed_sum, book.cluster_usage) for book in stored), np.float32),
        )

    def get_supported_speakers(self) -> list[str]:
        """The names ``generate_custom_voice`` takes, sorted."""
        return sorted(self.config.talker_config.spk_id)

    def get_supported_languages(self) -> list[str]:
        """The names every ``language`` argument takes, sorted; "auto" is one of them."""
        return supported_languages(self.config.talker_config)

    def generate_custom_voice(
        self,
        text: str | list[str],
        speaker: str | list[str],
        language: str | list[str] | None = None,
        instruct: str | list[str] | None = None,
        non_streaming_mode: bool = True,
        *,
        seed: Seed = None,
        return_codes: bool = False,
        progress: Progress = None,
        **sampling: Any,
    ) -> Speech:
        """Speak with a voice of the model's table, optionally following an instruction.

        Trap: the official package drops the instruction on 0.6B models without a word; here it warns.
        """
        items = self._custom_voices("generate_custom_voice", _texts(text), speaker, instruct)
        return self._speak(items, language, not non_streaming_mode, seed, return_codes, progress, sampling)

    def stream_custom_voice(
        self,
        text: str,
        speaker: str,
        language: str | None = None,
        instruct: str | None = None,
        non_streaming_mode: bool = True,
        *,
        packet_frames: int = 4,
        seed: Seed = None,
        **sampling: Any,
    ) -> SpeechStream:
        """The codes of ``generate_custom_voice`` as packets of samples, continuously decoded."""
        (item,) = self._custom_voices("stream_custom_voice", [_one(text)], speaker, instruct)
        return self._stream(item, language, not non_streaming_mode, packet_frames, seed, sampling)

    def open_custom_voice(
        self,
        speaker: str,
        language: str | None = None,
        instruct: str | None = None,
        *,
        packet_frames: int = 4,
        seed: Seed = None,
        **sampling: Any,
    ) -> SpeechSession:
        """A session that speaks with a voice of the model's table while the text is being written."""
        (item,) = self._custom_voices("open_custom_voice", [""], speaker, instruct)
        return self._open(item, language, packet_frames, seed, sampling)

    def _custom_voices(self, method: str, texts: list[str], speaker: Any, instruct: Any) -> list[Utterance]:
        self._require("custom_voice", method)
        instructs = _per_item(instruct, len(texts), "instruct", "")
        if self.config.tts_model_size == "0b6" and any(instructs):
            warnings.warn("the 0.6B custom-voice model does not follow instructions: instruct is ignored", stacklevel=3)
            instructs = [""] * len(texts)
        speakers = _per_item(speaker, len(texts), "speaker", "")
        return [Utterance(t, Voice(speaker=s or None), i) for t, s, i in zip(texts, speakers, instructs, strict=True)]

    def generate_voice_design(
        self,
        text: str | list[str],
        instruct: str | list[str],
        language: str | list[str] | None = None,
        non_streaming_mode: bool = True,
        *,
        seed: Seed = None,
        return_codes: bool = False,
        progress: Progress = None,
        **sampling: Any,
    ) -> Speech:
        """Speak with the voice that ``instruct`` describes; "" lets the model choose one."""
        items = self._designed_voices("generate_voice_design", _texts(text), instruct)
        return self._speak(items, language, not non_streaming_mode, seed, return_codes, progress, sampling)

    def stream_voice_design(
        self,
        text: str,
        instruct: str,
        language: str | None = None,
        non_streaming_mode: bool = True,
        *,
        packet_frames: int = 4,
        seed: Seed = None,
        **sampling: Any,
    ) -> SpeechStream:
        """The codes of ``generate_voice_design`` as packets of samples, continuously decoded."""
        (item,) = self._designed_voices("stream_voice_design", [_one(text)], instruct)
        return self._stream(item, language, not non_streaming_mode, packet_frames, seed, sampling)

    def open_voice_design(
        self,
        instruct: str,
        language: str | None = None,
        *,
        packet_frames: int = 4,
        seed: Seed = None,
        **sampling: Any,
    ) -> SpeechSession:
        """A session that speaks with the voice that ``instruct`` describes while the text is being written."""
        (item,) = self._designed_voices("open_voice_design", [""], instruct)
        return self._open(item, language, packet_frames, seed, sampling)

    def _designed_voices(self, method: str, texts: list[str], instruct: Any) -> list[Utterance]:
        self._require("voice_design", method)
        instructs = _per_item(instruct, len(texts), "instruct", "")
        return [Utterance(t, Voice(), i) for t, i in zip(texts, instructs, strict=True)]

    def generate_voice_clone(
        self,
        text: str | list[str],
        language: str | list[str] | None = None,
        ref_audio: AudioLike | list[AudioLike] | None = None,
        ref_text: str | list[str | None] | None = None,
        x_vector_only_mode: bool | list[bool] = False,
        voice_clone_prompt: Any = None,
        non_streaming_mode: bool = False,
        *,
        seed: Seed = None,
        return_codes: bool = False,
        progress: Progress = None,
        **sampling: Any,
    ) -> Speech:
        """Speak with the voice of a reference: a clip, or what :meth:`create_voice_clone_prompt` made of one.

        With ``x_vector_only_mode`` only the speaker embedding is used; otherwise the model continues the reference,
        whose transcript ``ref_text`` is then needed. Trap: this call is streaming by default, the others are not.
        """
        reference = (ref_audio, ref_text, x_vector_only_mode, voice_clone_prompt)
        items = self._cloned_voices("generate_voice_clone", _texts(text), *reference)
        return self._speak(items, language, not non_streaming_mode, seed, return_codes, progress, sampling)

    def stream_voice_clone(
        self,
        text: str,
        language: str | None = None,
        ref_audio: AudioLike | None = None,
        ref_text: str | None = None,
        x_vector_only_mode: bool = False,
        voice_clone_prompt: Any = None,
        non_streaming_mode: bool = False,
        *,
        packet_frames: int = 4,
        seed: Seed = None,
        **sampling: Any,
    ) -> SpeechStream:
        """The codes of ``generate_voice_clone`` as packets of samples, continuously decoded.

        In context the codec is led through the reference first: the samples are those that follow it in the continuous
        decode of reference and speech. ``generate_voice_clone`` restarts that decode every 300 frames, the reference
        counted, and its official cut is one sample early for some lengths.
        """
        reference = (ref_audio, ref_text, x_vector_only_mode, voice_clone_prompt)
        (item,) = self._cloned_voices("stream_voice_clone", [_one(text)], *reference)
        return self._stream(item, language, not non_streaming_mode, packet_frames, seed, sampling)

    def open_voice_clone(
        self,
        language: str | None = None,
        ref_audio: AudioLike | None = None,
        ref_text: str | None = None,
        x_vector_only_mode: bool = False,
        voice_clone_prompt: Any = None,
        *,
        packet_frames: int = 4,
        seed: Seed = None,
        **sampling: Any,
    ) -> SpeechSession:
        """A session that speaks with the voice of a reference while the text is being written.

        In context the streaming prompt lays the transcript and the text beside the reference's frames, a token to a
        frame. So nothing is spoken before the text has reached the end of the reference, or is finished: about 60
        tokens for 5 seconds, less the transcript. ``x_vector_only_mode`` begins at once.
        """
        reference = (ref_audio, ref_text, x_vector_only_mode, voice_clone_prompt)
        (item,) = self._cloned_voices("open_voice_clone", [""], *reference)
        return self._open(item, language, packet_frames, seed, sampling)

    def _cloned_voices(
        self, method: str, texts: list[str], ref_audio: Any, ref_text: Any, x_vector_only_mode: Any, prompt: Any
    ) -> list[Utterance]:
        self._require("base", method)
        if prompt is not None:
            references = voice_prompt_items(prompt)
        elif ref_audio is not None:
            references = self.create_voice_clone_prompt(ref_audio, ref_text, x_vector_only_mode)
        else:
            raise RequestError("give ref_audio or voice_clone_prompt: a base model has no voice of its own")
        references = _per_item(references, len(texts), "voice_clone_prompt", None)
        return [
            Utterance(t, self._voice(r), x_vector=r.ref_spk_embedding) for t, r in zip(texts, references, strict=True)
        ]

    def create_voice_clone_prompt(
        self,
        ref_audio: AudioLike | list[AudioLike],
        ref_text: str | list[str | None] | None = None,
        x_vector_only_mode: bool | list[bool] = False,
    ) -> list[VoiceClonePromptItem]:
        """Turn reference clips into voice prompts that any number of ``generate_voice_clone`` calls can use.

        A clip is a path, URL or base64 text of anything libsndfile reads, or ``(samples, rate in Hz)``. A clip that
        will make a poor voice gets a ``ReferenceClipWarning``. ``save`` keeps what is returned as a file.
        """
        self._require("base", "create_voice_clone_prompt")
        assert self.speaker_encoder is not None and self.config.speaker_encoder_config is not None
        clips = [read_audio(clip) for clip in (ref_audio if isinstance(ref_audio, list) else [ref_audio])]
        texts = _per_item(ref_text, len(clips), "ref_text", None)
        x_vector_only = _per_item(x_vector_only_mode, len(clips), "x_vector_only_mode", False)
        for i, (transcript, alone) in enumerate(zip(texts, x_vector_only, strict=True)):
            if not alone and not transcript:
                raise RequestError(f"ref_text of item {i} is missing; only x_vector_only_mode=True works without it")
        for i, ((wave, rate), transcript, alone) in enumerate(zip(clips, texts, x_vector_only, strict=True)):
            name = "the reference clip" if len(clips) == 1 else f"reference clip {i}"
            warn_about_clip(wave, rate, None if alone else transcript, name, stacklevel=2)
        c = self.config.speaker_encoder_config
        # Trap: a BLAS that waits for work would take a core from the kernels' team.
        with threadpool_limits(self.threads if self.speech_tokenizer.team is None else 1):
            codes = [None] * len(clips) if all(x_vector_only) else self._encode_references(clips)
            embeddings = [
                speaker_embedding(
                    resample(wave, sr, c.sample_rate), self.speaker_encoder, c, self._fast_speaker_encoder
                )
                for wave, sr in clips
            ]
        return [
            VoiceClonePromptItem(
                None if alone else code, embedding, bool(alone), not alone, transcript, self.fingerprint
            )
            for code, embedding, alone, transcript in zip(codes, embeddings, x_vector_only, texts, strict=True)
        ]

    @cached_property
    def _fast_speaker_encoder(self) -> FastSpeakerEncoder | None:
        """Packed at the first clip: most models never hear one."""
        team = self.speech_tokenizer.team
        if team is None or self.speaker_encoder is None:
            return None
        from .compiled.speaker.encoder import FastSpeakerEncoder

        assert self.config.speaker_encoder_config is not None
        return FastSpeakerEncoder.pack(self.speaker_encoder, self.config.speaker_encoder_config, team)

    def _encode_references(self, clips: list[tuple[Samples, int]]) -> list[Ints | None]:
        """Clips of one rate are encoded as a batch and others one by one: the official choice, and the last code of a
        clip can depend on it."""
        if len({rate for _, rate in clips}) == 1:
            return list(self.speech_tokenizer.encode([samples for samples, _ in clips], sr=clips[0][1]).audio_codes)
        return [self.speech_tokenizer.encode(samples, sr=rate).audio_codes[0] for samples, rate in clips]

    def _voice(self, item: VoiceClonePromptItem) -> Voice:
        c = self.config.talker_config
        codebook_size = self.speech_tokenizer.config.decoder_config.codebook_size
        check_fits(item, lambda: self.fingerprint, c.hidden_size, c.num_code_groups, codebook_size)
        if not item.icl_mode:
            return Voice(x_vector=item.x_vector_only_mode)
        assert item.ref_code is not None and item.ref_text is not None
        return Voice(
            x_vector=True,
            reference_text=tuple(reference_ids(self.text_tokenizer, item.ref_text)),
            reference_codes=item.ref_code,
        )

    def _speak(
        self,
        items: list[Utterance],
        language: str | list[str] | None,
        streaming: bool,
        seed: Seed,
        return_codes: bool,
        progress: Progress,
        sampling: dict[str, Any],
    ) -> Speech:
        languages = _per_item(language, len(items), "language", "auto")
        limits = self._limits(sampling)
        generator = make_generator(seed, len(items))
        requests = [
            Request(self._prompt(item, spoken, streaming), item.x_vector)
            for item, spoken in zip(items, languages, strict=True)
        ]
        codes = self.backend.generate(requests, limits, generator, progress)
        with threadpool_limits(self.threads):
            wavs = [self._decode(code, item.voice) for code, item in zip(codes, items, strict=True)]
        rate = self.speech_tokenizer.get_output_sample_rate()
        return (wavs, rate, codes) if return_codes else (wavs, rate)

    def _stream(
        self,
        item: Utterance,
        language: str | None,
        streaming: bool,
        packet_frames: int,
        seed: Seed,
        sampling: dict[str, Any],
    ) -> SpeechStream:
        playback = self._playback(item.voice, packet_frames)
        (spoken,) = _per_item(language, 1, "language", "auto")
        request = Request(self._prompt(item, spoken, streaming), item.x_vector)
        frames = self.backend.frames([request], self._limits(sampling), make_generator(seed, 1))
        return SpeechStream(frames, playback)

    def _open(
        self, item: Utterance, language: str | None, packet_frames: int, seed: Seed, sampling: dict[str, Any]
    ) -> SpeechSession:
        playback = self._playback(item.voice, packet_frames)
        (spoken,) = _per_item(language, 1, "language", "auto")
        limits, generator = self._limits(sampling), make_generator(seed, 1)
        instruct = instruct_ids(self.text_tokenizer, item.instruct)
        prompt = partial(
            build_prompt, self.config, language=spoken, voice=item.voice, instruct=instruct, streaming=True
        )
        prompt(text_ids(self.text_tokenizer, ""))  # what the model does not have is said now
        return SpeechSession(
            TextFeed(self.text_tokenizer),
            prompt,
            lambda request: self.backend.frames([request], limits, generator),
            item.x_vector,
            self.config.tts_eos_token_id,
            playback,
        )

    def _playback(self, voice: Voice, packet_frames: int) -> Playback:
        if not isinstance(packet_frames, int) or isinstance(packet_frames, bool) or packet_frames < 1:
            raise RequestError(f"packet_frames={packet_frames!r} must be a whole number of at least 1")
        return Playback(
            decode=self.speech_tokenizer.stream(),
            reference=voice.reference_codes,
            packet_frames=packet_frames,
            groups=self.config.talker_config.num_code_groups,
            sample_rate=self.speech_tokenizer.get_output_sample_rate(),
            threads=self.threads,
        )

    def _prompt(self, item: Utterance, language: str, streaming: bool) -> Prompt:
        text = text_ids(self.text_tokenizer, item.text)
        instruct = instruct_ids(self.text_tokenizer, item.instruct)
        return build_prompt(self.config, text, language, item.voice, instruct, streaming)

    def _decode(self, codes: Ints, voice: Voice) -> Samples:
        """Codes [frames, G] to samples; in context the reference is decoded in front and cut off again."""
        if voice.reference_codes is None:
            return self.speech_tokenizer.decode({"audio_codes": codes})[0][0]
        spoken = np.concatenate([voice.reference_codes, codes])
        wav = self.speech_tokenizer.decode({"audio_codes": spoken})[0][0]
        # Trap: the official cut is float arithmetic, which for some lengths lands one sample early.
        return wav[int(len(voice.reference_codes) / max(len(spoken), 1) * len(wav)) :]

    def _limits(self, sampling: dict[str, Any]) -> Limits:
        """The caller's sampling arguments over those of generation_config.json."""
        values = asdict(self.generation_config)
        for name, value in sampling.items():
            if name not in values:
                raise RequestError(f"there is no argument {name!r}; the sampling arguments are {', '.join(values)}")
            if value is not None:
                values[name] = value
        limit = values["max_new_tokens"]
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise RequestError(f"max_new_tokens={limit!r} must be a whole number of at least 1")
        names = ("do_sample", "temperature", "top_k", "top_p", "repetition_penalty")
        talker = SamplingParameters(**{name: values[name] for name in names})
        subtalker = SamplingParameters(
            do_sample=values["subtalker_dosample"],  # spelled so in the official file
            **{name: values[f"subtalker_{name}"] for name in names[1:4]},
            prefix="subtalker_",
        )
        return Limits(talker, subtalker, limit)

    def _require(self, model_type: str, method: str) -> None:
        if self.config.tts_model_type != model_type:
            raise RequestError(f"{method} needs a {model_type} model; this is a {self.config.tts_model_type} model")


def _backend(
    checkpoint: Checkpoint,
    config: ModelConfig,
    backend: str,
    weights_format: str,
    dtype: np.dtype[Any],
    threads: int | None,
) -> Backend:
    if weights_format not in ("auto", *FORMATS):
        raise RequestError(f"weights_format={weights_format!r} must be 'auto' or one of {', '.join(FORMATS)}")
    if not runs_compiled(backend, dtype):
        if weights_format != "auto":
            raise RequestError(
                f"weights_format={weights_format!r} with backend={backend!r} and dtype={dtype.name}: weight formats "
                "are for the compiled kernels, which need float32 and Numba's compiler"
            )
        return Reference.load(checkpoint, config, dtype, threads)
    chosen = stored_format(checkpoint) if weights_format == "auto" else weights_format
    return Compiled.load(checkpoint, config, chosen, threads or usable_cores())


def _load_speaker_encoder(
    checkpoint: Checkpoint, config: ModelConfig, dtype: np.dtype[Any]
) -> SpeakerEncoderWeights | None:
    c = config.speaker_encoder_config
    if c is None:
        return None
    return load(SpeakerEncoderWeights, checkpoint, speaker_encoder_sizes(c), "speaker_encoder.", dtype)


def _texts(text: str | list[str]) -> list[str]:
    texts = text if isinstance(text, list) else [text]
    if not texts:
        raise RequestError("text is an empty list; give at least one text")
    return texts


def _one(text: str) -> str:
    if not isinstance(text, str):
        raise RequestError(f"text is {type(text).__name__}; a stream speaks one text, a string")
    return text


def _per_item(value: Any, count: int, name: str, default: Any) -> list[Any]:
    """One value for each of ``count`` items: a list of that length, or one value (or None) for all."""
    values = value if isinstance(value, list) else [value]
    if len(values) == 1:
        values = values * count
    if len(values) != count:
        raise RequestError(f"{name} has {len(values)} values for {count} items; give one, or one for each")
    return [default if v is None else v for v in values]
