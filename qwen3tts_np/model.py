"""Qwen3TTSModel: text to waveform, with the calls of the official class. READ FIRST, then ``generate.py``.

A request takes five steps: the text becomes token ids (``text/``), the ids, the voice and the language become a prompt
(``request.py``, ``text/prompt.py``), the talker and the code predictor turn it into codes (``generate.py``), the codec
turns those into samples (``codec/``). Cloning first turns the reference clip into a speaker embedding (``speaker/``)
and, in context, into codes (``codec/``).

All calls are two: :meth:`Qwen3TTSModel.prepare` makes a request of a text and a voice, and ``generate``, ``stream`` or
``open`` speak it. The nine official methods, three for each kind of voice, are these two in one.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .audio.files import AudioLike, read_audio, resample
from .checkpoint.config_file import read_generation_config, read_model_config
from .checkpoint.keys import check, load
from .checkpoint.pretrained import check_leftovers, compute_dtype, directory
from .checkpoint.safetensors import Checkpoint
from .compiled.engine import Engine
from .compiled.frame_loop import FrameLoop
from .config import GenerationConfig, ModelConfig
from .errors import ConfigError, RequestError
from .generate import FrameWriter, Progress, collect, numbered, reported
from .layout.specs import model_specs
from .ops import Array, Ints, Wave
from .request import (
    MODEL_TYPES,
    ClonedVoice,
    CustomVoice,
    DesignedVoice,
    Request,
    Voice,
    groups_of_one_rule,
    limits_of,
    make_request,
    one_text,
    per_item,
    prompt_layout,
    texts_of,
)
from .speaker.encoder import SpeakerEncoderWeights, speaker_embedding, speaker_encoder_sizes
from .speech_tokenizer import Qwen3TTSTokenizer
from .streaming import Playback, SpeechSession, SpeechStream
from .talker.frame import Frame
from .talker.generator import item_seeds, make_generator, shared_seed
from .text.feed import TextFeed
from .text.prompt import supported_languages
from .text.tokenizer import Pretokenizer, Tokenizer
from .voice.prompt_item import Fingerprint, VoiceClonePromptItem, check_fits, digest, voice_prompt_items
from .voice.reference_clip import warn_about_clip

if TYPE_CHECKING:
    from .compiled.speaker.encoder import CompiledSpeakerEncoder

Seed = int | Sequence[int | None] | None
# (waveforms, sample rate in Hz), and with return_codes=True the codes, [frames, G] each
Speech = tuple[list[Wave], int] | tuple[list[Wave], int, list[Ints]]
IGNORED = "the 0.6B custom-voice model does not follow instructions: instruct is ignored"


class Utterance(NamedTuple):
    """A request that has been spoken."""

    samples: Wave  # [samples] at the codec's output rate
    codes: Ints  # [frames, G]


@dataclass(frozen=True)
class Qwen3TTSModel:
    """A checkpoint, ready to speak. Official: ``Qwen3TTSModel``.

    ``generate_*`` methods take one text or a list of texts; every other per-item argument is one value for all of them
    or a list of the same length. They return the waveforms and the sample rate in Hz, and with ``return_codes=True``
    also the codes [frames, G] of each. ``seed=s`` gives the codes that ``torch.manual_seed(s)`` gives the official
    package; ``seed=[s1, s2, ...]`` seeds each item on its own. The sampling arguments are those of
    ``GenerationConfig``, which holds what the checkpoint says about them. ``max_new_tokens=N`` gives at most N - 1
    frames, as it does officially. ``progress`` is called after every frame with the number of frames so far.
    RequestError says in one sentence what a model cannot do.

    ``stream_*`` methods speak one text and yield its samples packet by packet, ``packet_frames`` frames of 80 ms each,
    as they are generated. ``open_*`` methods begin a session to which the text itself comes piece by piece.

    All of them rest on :meth:`prepare`, :meth:`generate`, :meth:`stream` and :meth:`open`.
    """

    config: ModelConfig
    generation_config: GenerationConfig
    text_tokenizer: Tokenizer
    speech_tokenizer: Qwen3TTSTokenizer
    frame_loop: FrameWriter
    speaker_encoder: SpeakerEncoderWeights | None
    engine: Engine

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
        folder = directory(path, cache_dir)
        engine = Engine.choose(backend, compute_dtype(dtype), weights_format, threads)
        config = read_model_config(folder)
        checkpoint = Checkpoint.open(folder)
        check(checkpoint, model_specs(config))
        speech_tokenizer = Qwen3TTSTokenizer.load(folder / "speech_tokenizer", engine)
        writes, reads = config.talker_config.num_code_groups, speech_tokenizer.config.decoder_config.num_quantizers
        if writes != reads:
            raise ConfigError(f"{folder}: the talker writes {writes} codes a frame, speech_tokenizer reads {reads}")
        frame_loop = FrameLoop(engine, config, checkpoint)
        if engine.compiled:  # packed now: its file's pages are given back before the talker needs memory
            _ = speech_tokenizer.compiled_decoder
        _ = frame_loop.used_weights
        return cls(
            config=config,
            generation_config=read_generation_config(folder),
            text_tokenizer=Tokenizer.from_directory(folder, pretokenizer=pretokenizer),
            speech_tokenizer=speech_tokenizer,
            frame_loop=frame_loop,
            speaker_encoder=_load_speaker_encoder(checkpoint, config, engine.dtype),
            engine=engine,
        )

    @classmethod
    def for_prompts(cls, path: str | Path) -> Qwen3TTSModel:
        """The model on NumPy, to prepare requests: the weights that write codes are not read until it speaks."""
        folder, engine = directory(path), Engine.choose("reference", np.dtype(np.float32))
        config = read_model_config(folder)
        checkpoint = Checkpoint.open(folder)
        check(checkpoint, model_specs(config))
        return cls(
            config=config,
            generation_config=read_generation_config(folder),
            text_tokenizer=Tokenizer.from_directory(folder),
            speech_tokenizer=Qwen3TTSTokenizer.load(folder / "speech_tokenizer", engine),
            frame_loop=FrameLoop(engine, config, checkpoint),
            speaker_encoder=_load_speaker_encoder(checkpoint, config, engine.dtype),
            engine=engine,
        )

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """The parts of this model that voices depend on; hashing them takes about 0.1 s, once."""
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

    # --- requests ---------------------------------------------------------------------------------

    def prepare(
        self,
        text: str,
        voice: Voice,
        *,
        language: str | None = None,
        streaming: bool | None = None,
        seed: int | None = None,
        **sampling: Any,
    ) -> Request:
        """A request for one piece of text: its prompt, its limits and its seed. Nothing is generated.

        ``language``: one of :meth:`get_supported_languages`, "auto" by default. ``streaming``: whether the prompt adds
        the text token by token to the frames instead of having it all before them; by default, as officially, for a
        ClonedVoice only. ``seed``: None draws one, which the request keeps. ``sampling``: where to depart from the
        checkpoint's ``GenerationConfig``. RequestError for whatever the model does not have or cannot do.
        """
        voice = self._checked(self._followed(voice, stacklevel=3))
        streaming = isinstance(voice, ClonedVoice) if streaming is None else streaming
        limits = limits_of(self.generation_config, sampling)
        return make_request(self.config, self.text_tokenizer, text, voice, language or "auto", streaming, limits, seed)

    def generate(
        self,
        requests: Sequence[Request],
        *,
        joint_seed: int | None = None,
        progress: Progress = None,
        continuous: bool = False,
    ) -> list[Utterance]:
        """Speak requests together. Each has the codes that it has alone, whatever its company.

        ``joint_seed`` is the official draw of a batch instead: one stream of random numbers for all requests, in which
        finished ones go on drawing; their own seeds do not count. ``progress`` is called after every frame with the
        number of frames so far. ``continuous``: see :meth:`decode`.
        """
        frames = reported(self.frames(requests, joint_seed=joint_seed), progress)
        codes = collect(frames, len(requests), self.config.talker_config.num_code_groups)
        waves = [self.decode(*spoken, continuous=continuous) for spoken in zip(requests, codes, strict=True)]
        return [Utterance(*spoken) for spoken in zip(waves, codes, strict=True)]

    def stream(self, request: Request, *, packet_frames: int = 4) -> SpeechStream:
        """Speak one request packet by packet, ``packet_frames`` frames of 80 ms each, as they are generated."""
        playback = self._playback(request.reference_codes, packet_frames)
        return SpeechStream(self.frames([request]), playback)

    def open(
        self,
        voice: Voice,
        *,
        language: str | None = None,
        packet_frames: int = 4,
        seed: int | None = None,
        **sampling: Any,
    ) -> SpeechSession:
        """Begin a session to which the text comes piece by piece. Arguments are those of :meth:`prepare`."""
        voice = self._followed(voice, stacklevel=3)
        empty = self.prepare("", voice, language=language, streaming=True, seed=seed, **sampling)
        lay_out = prompt_layout(self.config, self.text_tokenizer, voice, language or "auto", streaming=True)
        playback = self._playback(empty.reference_codes, packet_frames)
        feed, end_of_text = TextFeed(self.text_tokenizer), self.config.tts_eos_token_id
        return SpeechSession(feed, empty, lay_out, lambda request: self.frames([request]), end_of_text, playback)

    def frames(self, requests: Sequence[Request], *, joint_seed: int | None = None) -> Iterator[Frame]:
        """The codes of :meth:`generate` frame by frame; nothing runs between two frames.

        One pass of the frame loop has one set of sampling rules: requests with other rules follow after the first.
        """
        if joint_seed is not None:
            if any(request.limits != requests[0].limits for request in requests):
                raise RequestError("a joint draw needs requests with the same sampling arguments; these differ")
            return self.frame_loop.frames(requests, make_generator(joint_seed, len(requests)))
        groups = [(i, [requests[k] for k in i]) for i in groups_of_one_rule(requests)]
        return numbered(
            (i, self.frame_loop.frames(group, make_generator([request.seed for request in group], len(group))))
            for i, group in groups
        )

    def decode(self, request: Request, codes: Ints, *, continuous: bool = False) -> Wave:
        """The samples [samples] of a request's codes [frames, G], less those of the reference that it continues.

        The official decoder, and so this one, restarts every 300 frames (24 s), and its cut behind the reference is one
        sample early for some lengths. ``continuous`` is the exact decode, that of a stream; up to 300 frames, those of
        the reference counted, the samples are the same.
        """
        reference = request.reference_codes
        spoken = codes if reference is None else np.concatenate([reference, codes])
        (wave,), _ = self.speech_tokenizer.decode({"audio_codes": spoken}, continuous=continuous)
        if reference is None:
            return wave
        if continuous:
            return wave[len(reference) * self.speech_tokenizer.get_decode_upsample_rate() :]
        # Trap: the official cut is float arithmetic, which for some lengths lands one sample early.
        return wave[int(len(reference) / max(len(spoken), 1) * len(wave)) :]

    def _checked(self, voice: Voice) -> Voice:
        """``voice``; RequestError if this model cannot speak with it."""
        if type(voice) not in MODEL_TYPES:
            raise RequestError(f"voice is {type(voice).__name__}; give a CustomVoice, a DesignedVoice or a ClonedVoice")
        self._require(MODEL_TYPES[type(voice)], type(voice).__name__)
        if isinstance(voice, ClonedVoice):
            c = self.config.talker_config
            codebook_size = self.speech_tokenizer.config.decoder_config.codebook_size
            check_fits(voice.item, lambda: self.fingerprint, c.hidden_size, c.num_code_groups, codebook_size)
        return voice

    def _followed(self, voice: Voice, stacklevel: int) -> Voice:
        """``voice`` without an instruction that the model was not trained to follow; a warning says so.

        Trap: the official package drops it without a word.
        """
        if isinstance(voice, CustomVoice) and voice.instruct and self.config.tts_model_size == "0b6":
            warnings.warn(IGNORED, stacklevel=stacklevel)
            return replace(voice, instruct="")
        return voice

    def _require(self, model_type: str, what: str) -> None:
        if self.config.tts_model_type != model_type:
            raise RequestError(f"{what} needs a {model_type} model; this is a {self.config.tts_model_type} model")

    def _playback(self, reference: Ints | None, packet_frames: int) -> Playback:
        if not isinstance(packet_frames, int) or isinstance(packet_frames, bool) or packet_frames < 1:
            raise RequestError(f"packet_frames={packet_frames!r} must be a whole number of at least 1")
        return Playback(
            decode=self.speech_tokenizer.stream(),
            reference=reference,
            packet_frames=packet_frames,
            groups=self.config.talker_config.num_code_groups,
            sample_rate=self.speech_tokenizer.get_output_sample_rate(),
        )

    # --- voices of reference clips ----------------------------------------------------------------

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
        clips = [read_audio(clip) for clip in (ref_audio if isinstance(ref_audio, list) else [ref_audio])]
        texts = per_item(ref_text, len(clips), "ref_text", None)
        x_vector_only = per_item(x_vector_only_mode, len(clips), "x_vector_only_mode", False)
        for i, (transcript, alone) in enumerate(zip(texts, x_vector_only, strict=True)):
            if not alone and not transcript:
                raise RequestError(f"ref_text of item {i} is missing; only x_vector_only_mode=True works without it")
        for i, ((wave, rate), transcript, alone) in enumerate(zip(clips, texts, x_vector_only, strict=True)):
            name = "the reference clip" if len(clips) == 1 else f"reference clip {i}"
            warn_about_clip(wave, rate, None if alone else transcript, name, stacklevel=2)
        codes = [None] * len(clips) if all(x_vector_only) else self._encode_references(clips)
        embeddings = [self._embed_speaker(*clip) for clip in clips]
        return [
            VoiceClonePromptItem(
                None if alone else code, embedding, bool(alone), not alone, transcript, self.fingerprint
            )
            for code, embedding, alone, transcript in zip(codes, embeddings, x_vector_only, texts, strict=True)
        ]

    def _embed_speaker(self, wave: Wave, rate: int) -> Array:
        """The speaker embedding [H] of a clip."""
        c, w = self.config.speaker_encoder_config, self.speaker_encoder
        assert c is not None and w is not None
        audio = resample(wave, rate, c.sample_rate)
        with self.engine.limited():
            if self.engine.runs_kernels:
                return self._compiled_speaker_encoder.embedding(audio)
            return speaker_embedding(audio, w, c)

    @cached_property
    def _compiled_speaker_encoder(self) -> CompiledSpeakerEncoder:
        """Packed at the first clip: most models never get one."""
        from .compiled.speaker.encoder import CompiledSpeakerEncoder

        assert self.speaker_encoder is not None and self.config.speaker_encoder_config is not None
        return CompiledSpeakerEncoder.pack(self.speaker_encoder, self.config.speaker_encoder_config, self.engine.team)

    def _encode_references(self, clips: list[tuple[Wave, int]]) -> list[Ints | None]:
        """Clips of one rate are encoded as a batch and others one by one: the official choice, and the last code of a
        clip can depend on it."""
        if len({rate for _, rate in clips}) == 1:
            return list(self.speech_tokenizer.encode([samples for samples, _ in clips], sr=clips[0][1]).audio_codes)
        return [self.speech_tokenizer.encode(samples, sr=rate).audio_codes[0] for samples, rate in clips]

    # --- the nine methods, with the arguments of the official class ------------------------------

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
        said = self._custom_voices("generate_custom_voice", texts_of(text), speaker, instruct)
        return self._speak(said, language, not non_streaming_mode, seed, return_codes, progress, sampling)

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
        said = self._custom_voices("stream_custom_voice", [one_text(text)], speaker, instruct)
        return self._stream(said, language, not non_streaming_mode, packet_frames, seed, sampling)

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
        """A session that speaks with a voice of the model's table while the text is arriving."""
        said = self._custom_voices("open_custom_voice", [""], speaker, instruct)
        return self._open(said, language, packet_frames, seed, sampling)

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
        said = self._designed_voices("generate_voice_design", texts_of(text), instruct)
        return self._speak(said, language, not non_streaming_mode, seed, return_codes, progress, sampling)

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
        said = self._designed_voices("stream_voice_design", [one_text(text)], instruct)
        return self._stream(said, language, not non_streaming_mode, packet_frames, seed, sampling)

    def open_voice_design(
        self,
        instruct: str,
        language: str | None = None,
        *,
        packet_frames: int = 4,
        seed: Seed = None,
        **sampling: Any,
    ) -> SpeechSession:
        """A session that speaks with the voice that ``instruct`` describes while the text is arriving."""
        said = self._designed_voices("open_voice_design", [""], instruct)
        return self._open(said, language, packet_frames, seed, sampling)

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
        said = self._cloned_voices("generate_voice_clone", texts_of(text), *reference)
        return self._speak(said, language, not non_streaming_mode, seed, return_codes, progress, sampling)

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

        In context the codec decodes the reference first: the samples are those that follow it in the continuous
        decode of reference and speech. ``generate_voice_clone`` restarts that decode every 300 frames, the reference
        counted, and its official cut is one sample early for some lengths.
        """
        reference = (ref_audio, ref_text, x_vector_only_mode, voice_clone_prompt)
        said = self._cloned_voices("stream_voice_clone", [one_text(text)], *reference)
        return self._stream(said, language, not non_streaming_mode, packet_frames, seed, sampling)

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
        """A session that speaks with the voice of a reference while the text is arriving.

        In context the streaming prompt puts the transcript and the text beside the reference's frames, one token
        per frame. So nothing is spoken before the text has reached the end of the reference, or is finished: about 60
        tokens for 5 seconds, less the transcript. ``x_vector_only_mode`` begins at once.
        """
        reference = (ref_audio, ref_text, x_vector_only_mode, voice_clone_prompt)
        said = self._cloned_voices("open_voice_clone", [""], *reference)
        return self._open(said, language, packet_frames, seed, sampling)

    # --- what the nine methods share --------------------------------------------------------------

    def _custom_voices(self, method: str, texts: list[str], speaker: Any, instruct: Any) -> list[tuple[str, Voice]]:
        """Every text with its voice."""
        self._require("custom_voice", method)
        instructs = per_item(instruct, len(texts), "instruct", "")
        if self.config.tts_model_size == "0b6" and any(instructs):
            warnings.warn(IGNORED, stacklevel=3)
            instructs = [""] * len(texts)
        voices = map(CustomVoice, per_item(speaker, len(texts), "speaker", ""), instructs)
        return list(zip(texts, voices, strict=True))

    def _designed_voices(self, method: str, texts: list[str], instruct: Any) -> list[tuple[str, Voice]]:
        self._require("voice_design", method)
        return list(zip(texts, map(DesignedVoice, per_item(instruct, len(texts), "instruct", "")), strict=True))

    def _cloned_voices(
        self, method: str, texts: list[str], ref_audio: Any, ref_text: Any, x_vector_only_mode: Any, prompt: Any
    ) -> list[tuple[str, Voice]]:
        self._require("base", method)
        if prompt is not None:
            items = voice_prompt_items(prompt)
        elif ref_audio is not None:
            items = self.create_voice_clone_prompt(ref_audio, ref_text, x_vector_only_mode)
        else:
            raise RequestError("give ref_audio or voice_clone_prompt: a base model has no voice of its own")
        return list(zip(texts, map(ClonedVoice, per_item(items, len(texts), "voice_clone_prompt", None)), strict=True))

    def _speak(
        self,
        said: list[tuple[str, Voice]],
        language: str | list[str] | None,
        streaming: bool,
        seed: Seed,
        return_codes: bool,
        progress: Progress,
        sampling: dict[str, Any],
    ) -> Speech:
        """All texts together; one seed for several of them is the official joint draw."""
        languages = per_item(language, len(said), "language", "auto")
        limits = limits_of(self.generation_config, sampling)
        requests = [
            make_request(self.config, self.text_tokenizer, text, self._checked(voice), spoken, streaming, limits, own)
            for (text, voice), spoken, own in zip(said, languages, item_seeds(seed, len(said)), strict=True)
        ]
        spoken = self.generate(requests, joint_seed=shared_seed(seed, len(said)), progress=progress)
        waves, codes = [one.samples for one in spoken], [one.codes for one in spoken]
        rate = self.speech_tokenizer.get_output_sample_rate()
        return (waves, rate, codes) if return_codes else (waves, rate)

    def _stream(
        self,
        said: list[tuple[str, Voice]],
        language: str | None,
        streaming: bool,
        packet_frames: int,
        seed: Seed,
        sampling: dict[str, Any],
    ) -> SpeechStream:
        (pair,), (own,) = said, item_seeds(seed, 1)
        (spoken,) = per_item(language, 1, "language", "auto")
        request = self.prepare(*pair, language=spoken, streaming=streaming, seed=own, **sampling)
        return self.stream(request, packet_frames=packet_frames)

    def _open(
        self,
        said: list[tuple[str, Voice]],
        language: str | None,
        packet_frames: int,
        seed: Seed,
        sampling: dict[str, Any],
    ) -> SpeechSession:
        ((_, voice),), (own,) = said, item_seeds(seed, 1)
        (spoken,) = per_item(language, 1, "language", "auto")
        return self.open(voice, language=spoken, packet_frames=packet_frames, seed=own, **sampling)


def _load_speaker_encoder(
    checkpoint: Checkpoint, config: ModelConfig, dtype: np.dtype[Any]
) -> SpeakerEncoderWeights | None:
    c = config.speaker_encoder_config
    if c is None:
        return None
    return load(SpeakerEncoderWeights, checkpoint, speaker_encoder_sizes(c), "speaker_encoder.", dtype)
