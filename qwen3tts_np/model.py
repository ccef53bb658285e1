"""Qwen3TTSModel: text to waveform, with the calls of the official class. READ FIRST, then ``generate.py``.

A request takes five steps: the text becomes token ids (``text/``), the ids, the voice and the language become a prompt
(``request.py``, ``text/prompt.py``), the talker and the code predictor turn it into codes (``generate.py``), the codec
turns those into samples (``codec/``). Cloning first turns the reference clip into a speaker embedding (``speaker/``)
and, in context, into codes (``codec/``).

All calls are two: :meth:`Qwen3TTSModel.prepare` makes a request of a text and a voice, and ``generate``, ``stream`` or
``open`` speak it. The official methods (``official_calls.py``) are these two in one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .arguments import callback, codes_of, path_of, require_type, switch, whole_number
from .checkpoint.adapter import Adapter
from .checkpoint.config_file import read_generation_config, read_model_config
from .checkpoint.keys import check, load
from .checkpoint.pretrained import check_leftovers, compute_dtype, directory
from .checkpoint.safetensors import Checkpoint
from .cloning import VoiceCloner
from .compiled.engine import Engine
from .compiled.frame_loop import FrameLoop
from .compiled.packed_copy import is_allowed, packed_copy
from .config import GenerationConfig, ModelConfig
from .errors import ConfigError, RequestError, RequestTypeError
from .generate import FrameWriter, ProgressCallback, collect, reported
from .layout.description import mismatches
from .layout.specs import model_specs
from .official_calls import OfficialCalls
from .official_view import NetworkView
from .ops import Ints, Wave
from .request import (
    MODEL_TYPE_OF,
    ClonedVoice,
    Request,
    Utterance,
    Voice,
    check_sizes,
    limits_of,
    make_request,
    prompt_layout,
)
from .running_batch import PROMPT_SLICE, RunningBatch
from .shown import shortened
from .speaker.encoder import SpeakerEncoderWeights, speaker_encoder_sizes
from .speech_tokenizer import Qwen3TTSTokenizer
from .streaming import ArrivingText, Packets, Playback, SpeechSession, SpeechStream
from .talker.frame import Frame
from .talker.generator import make_generator
from .text.feed import TextFeed
from .text.prompt import supported_languages
from .text.tokenizer import Pretokenizer, Tokenizer
from .voice.prompt_item import SIZES, Fingerprint, check_fits
from .voice_arguments import followed, voices_of

MOST_PLACES = 1024  # of a running batch; each has its keys and values


@dataclass(frozen=True)
class Qwen3TTSModel(OfficialCalls):
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
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        dtype: Any = None,
        backend: str = "auto",
        weights_format: str = "auto",
        threads: int | None = None,
        pretokenizer: Pretokenizer = "native",
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        token: Any = None,
        cache_packed: bool | None = None,
        adapter: str | os.PathLike[str] | Adapter | None = None,
        torch_dtype: Any = None,
        **torch_arguments: Any,
    ) -> Qwen3TTSModel:
        """Load a checkpoint directory, or a model of the hub by its name, ``owner/name``.

        ``dtype``: what activations are computed in, float32 (default) or float64. ``backend``: "compiled" kernels,
        the NumPy "reference", or "auto", which compiles unless float64 is asked for or Numba's compiler is off.
        ``weights_format``: what the kernels multiply by: "auto" is the checkpoint's own format, which loses nothing;
        "int8" and "int4" are smaller, faster and approximate. ``threads``: how many are used, all cores by default.
        ``pretokenizer``: see ``text.tokenizer.Tokenizer``. ``cache_dir``, ``local_files_only``, ``revision`` and
        ``token``: see ``checkpoint.pretrained.directory``. ``cache_packed``: keep int8 or int4 weights packed in the
        user's cache, so that the next process maps them (``compiled/packed_copy.py``); by default where the environment
        says ``QWEN3TTS_NP_CACHE_PACKED=1``. ``adapter``: the folder of a low-rank adapter, which is added to the
        weights as they are loaded (``checkpoint/adapter.py``); with a voice in it, a base model becomes a custom-voice
        model. ``torch_dtype``: the former name of ``dtype``. Arguments that tell PyTorch where and how to run are
        ignored, with a warning where they ask for what is not done here.
        """
        check_leftovers(torch_arguments)
        kind = compute_dtype(torch_dtype if dtype is None else dtype)
        may_keep = is_allowed(cache_packed, weights_format)
        engine = Engine.choose(backend, kind, weights_format, threads)  # first: what is wrong costs no download
        folder = directory(
            pretrained_model_name_or_path,
            cache_dir,
            local_files_only=switch(local_files_only, "local_files_only"),
            revision=revision,
            token=token,
        )
        if adapter is not None and not isinstance(adapter, Adapter):
            adapter = Adapter.open(path_of(adapter, "adapter"))
        if may_keep and engine.compiled and adapter is None:
            folder = packed_copy(folder, weights_format)
        return cls._load(folder, engine, pretokenizer, read_weights=True, adapter=adapter)

    @classmethod
    def for_prompts(cls, path: str | Path) -> Qwen3TTSModel:
        """The model on NumPy, to prepare requests: the weights that write codes are not read until it speaks."""
        return cls._load(
            directory(path), Engine.choose("reference", np.dtype(np.float32)), "native", read_weights=False
        )

    @classmethod
    def _load(
        cls,
        folder: Path,
        engine: Engine,
        pretokenizer: Pretokenizer,
        read_weights: bool,
        adapter: Adapter | None = None,
    ) -> Qwen3TTSModel:
        """The model of a checkpoint directory; small files are read before weights, and refused before."""
        config = read_model_config(folder)
        checkpoint = Checkpoint.open(folder)
        check(checkpoint, model_specs(config))
        if adapter is not None:
            checkpoint = adapter.merged(checkpoint)
            config = read_model_config(folder, adapter.config)
        frame_loop = FrameLoop(engine, config, checkpoint)
        speech_tokenizer = Qwen3TTSTokenizer.load(
            folder / "speech_tokenizer", engine, "int16" if frame_loop.is_quantised else "float32"
        )
        if wrong := mismatches(config, speech_tokenizer.config):
            raise ConfigError(f"{folder}: {wrong[0]}")
        generation_config = read_generation_config(folder)
        text_tokenizer = Tokenizer.from_directory(folder, pretokenizer=pretokenizer)
        if (ids := text_tokenizer.vocab_size) > (rows := config.talker_config.text_vocab_size):
            raise ConfigError(f"{folder}: the tokenizer has {ids} ids, text_vocab_size is {rows}")
        if read_weights:
            if engine.compiled:  # first, so that its file's pages are given back before the talker needs memory
                _ = speech_tokenizer.compiled_decoder
            _ = frame_loop.used_weights
        return cls(
            config=config,
            generation_config=generation_config,
            text_tokenizer=text_tokenizer,
            speech_tokenizer=speech_tokenizer,
            frame_loop=frame_loop,
            speaker_encoder=_load_speaker_encoder(checkpoint, config, engine.dtype),
            engine=engine,
        )

    @cached_property
    def cloner(self) -> VoiceCloner:
        """The maker of voices; its compiled speaker encoder is packed at the first clip."""
        return VoiceCloner(self.config, self.speech_tokenizer, self.speaker_encoder, self.engine)

    @property
    def fingerprint(self) -> Fingerprint:
        """The parts of this model that voices depend on."""
        return self.cloner.fingerprint

    def __repr__(self) -> str:
        size = SIZES.get(self.config.tts_model_size, self.config.tts_model_size)
        return f"Qwen3TTSModel({size} {self.config.tts_model_type}, {self.engine})"

    @cached_property
    def model(self) -> NetworkView:
        """The attributes of the official ``Qwen3TTSForConditionalGeneration`` that scripts read."""
        return NetworkView(self.config, self.speech_tokenizer, self.speaker_encoder)

    @property
    def device(self) -> str:
        """Always "cpu"."""
        return self.model.device

    @property
    def processor(self) -> Tokenizer:
        """The text tokenizer, under the name of its official wrapper."""
        return self.text_tokenizer

    @property
    def generate_defaults(self) -> dict[str, Any]:
        """``generation_config`` as a dictionary."""
        return asdict(self.generation_config)

    def get_supported_speakers(self) -> list[str]:
        """The names ``generate_custom_voice`` takes, sorted."""
        return sorted(self.config.talker_config.spk_id)

    def get_supported_languages(self) -> list[str]:
        """The names every ``language`` argument takes, sorted; "auto" is one of them."""
        return supported_languages(self.config.talker_config)

    # --- requests ---------------------------------------------------------------------------------

    def voice(self, **arguments: Any) -> Voice:
        """The voice that arguments of this model's ``generate_*`` method name, one value each.

        Without a ``speaker`` it is the model's first, and a ``ref_audio`` without a ``ref_text`` gives its speaker
        embedding alone (``voice_arguments.py``). RequestError where the arguments do not name a voice of this model.
        """
        (voice,) = voices_of(self.config, self.cloner, 1, **arguments)
        return voice

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
        (voice,) = followed(self.config, [self._checked(voice)])
        streaming = isinstance(voice, ClonedVoice) if streaming is None else switch(streaming, "streaming")
        language = "auto" if language is None else language
        limits = limits_of(self.generation_config, sampling)
        return make_request(self.config, self.text_tokenizer, text, voice, language, streaming, limits, seed)

    def generate(
        self,
        requests: Sequence[Request],
        *,
        joint_seed: int | None = None,
        progress: ProgressCallback = None,
        continuous: bool = False,
    ) -> list[Utterance]:
        """Speak requests together. Each has the codes that it has alone, whatever its company.

        ``joint_seed`` is the official draw of a batch instead: one stream of random numbers for all requests, in which
        finished ones go on drawing; their own seeds do not count. ``progress`` is called after every frame with the
        number of frames so far. ``continuous``: see :meth:`decode`.
        """
        continuous, report = switch(continuous, "continuous"), callback(progress, "progress")
        requests = self._made_here(requests)
        frames = reported(self.frames(requests, joint_seed=joint_seed), report)
        codes = collect(frames, len(requests), self.config.talker_config.num_code_groups)
        waves = [self.decode(*spoken, continuous=continuous) for spoken in zip(requests, codes, strict=True)]
        return [Utterance(*spoken) for spoken in zip(waves, codes, strict=True)]

    def stream(self, request: Request, *, packet_frames: int = 4) -> SpeechStream:
        """Speak one request packet by packet, ``packet_frames`` frames of 80 ms each, as they are generated."""
        (request,) = self._made_here([request])
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
        text = self.arriving(voice, language=language, seed=seed, **sampling)
        playback = self._playback(text.reference_codes, packet_frames)
        return SpeechSession(text, lambda request: self.frames([request]), playback)

    def arriving(
        self, voice: Voice, *, language: str | None = None, seed: int | None = None, **sampling: Any
    ) -> ArrivingText:
        """A request whose text comes piece by piece, to be spoken in a :class:`RunningBatch`: what ``open`` speaks."""
        (voice,) = followed(self.config, [voice])
        empty = self.prepare("", voice, language=language, streaming=True, seed=seed, **sampling)
        language = "auto" if language is None else language
        lay_out = prompt_layout(self.config, self.text_tokenizer, voice, language, streaming=True)
        return ArrivingText(TextFeed(self.text_tokenizer), empty, lay_out, self.config.tts_eos_token_id)

    def open_batch(
        self, *, places: int, positions: int | None = None, prompt_slice: int | None = PROMPT_SLICE
    ) -> RunningBatch:
        """Places for requests that are spoken together, and join and leave between frames: see :class:`RunningBatch`.

        ``positions``: the most that a request can have, of its prompt and its frames together; the memory of all places
        is then fixed. None lets it grow. ``prompt_slice``: how many positions of newcomers' prompts a step reads
        while others speak; None reads whole prompts at once. Codes do not depend on it.
        """
        places = whole_number(places, "places")
        if places > MOST_PLACES:
            raise RequestError(f"places={shortened(places)} must be a whole number of at most {MOST_PLACES}")
        if positions is not None:  # no request has more than the model has
            most = self.config.talker_config.max_position_embeddings
            positions = min(whole_number(positions, "positions"), most)
        prompt_slice = None if prompt_slice is None else whole_number(prompt_slice, "prompt_slice")
        assert isinstance(self.frame_loop, FrameLoop)
        return self.frame_loop.open_batch(places, positions, prompt_slice)

    def packets(self, request: Request | ArrivingText, *, packet_frames: int = 4) -> Packets:
        """The decoder of a request's codes into packets of samples, for frames that come from a :class:`RunningBatch`.

        ``add`` takes the next frame [G] and yields the packet that it completes, ``rest`` the incomplete last one: the
        samples of :meth:`stream`.
        """
        require_type(request, Request | ArrivingText, "a request")
        return Packets(self._playback(request.reference_codes, packet_frames))

    def frames(self, requests: Sequence[Request], *, joint_seed: int | None = None) -> Iterator[Frame]:
        """The codes of :meth:`generate` frame by frame; nothing runs between two frames."""
        requests = self._made_here(requests)
        if not requests:
            return iter(())
        seeds: int | list[int] = [request.seed for request in requests] if joint_seed is None else joint_seed
        if joint_seed is not None and any(request.limits != requests[0].limits for request in requests):
            raise RequestError("a joint draw needs requests with the same sampling arguments; these differ")
        return self.frame_loop.frames(requests, make_generator(seeds, len(requests)))

    def decode(self, request: Request, codes: Ints, *, continuous: bool = False) -> Wave:
        """The samples [samples] of a request's codes [frames, G], less those of the reference that it continues.

        The official decoder, and so this one, restarts every 300 frames (24 s), and its cut behind the reference is one
        sample early for some lengths. ``continuous`` is the exact decode, that of a stream; up to 300 frames, those of
        the reference counted, the samples are the same.
        """
        (request,) = self._made_here([request])
        codes = codes_of(codes, "codes", self.config.talker_config.num_code_groups)
        reference = request.reference_codes
        spoken = codes if reference is None else np.concatenate([reference, codes])
        (wave,), _ = self.speech_tokenizer.decode({"audio_codes": spoken}, continuous=continuous)
        if reference is None:
            return wave
        if continuous:
            return wave[len(reference) * self.speech_tokenizer.get_decode_upsample_rate() :]
        # Trap: the official cut is float arithmetic, which for some lengths lands one sample early.
        return wave[int(len(reference) / max(len(spoken), 1) * len(wave)) :]

    def _made_here(self, requests: Sequence[Request]) -> Sequence[Request]:
        """``requests``; RequestError for what is none, or was prepared for a model of other sizes."""
        if not isinstance(requests, list | tuple):
            raise RequestTypeError(f"requests is {type(requests).__name__}, expected a list of what prepare returns")
        for request in requests:
            require_type(request, Request, "a request")
            check_sizes(self.config, request)
        return requests

    def _checked(self, voice: Voice) -> Voice:
        """``voice``; RequestError if this model cannot speak with it."""
        if type(voice) not in MODEL_TYPE_OF:
            raise RequestError(f"voice is {type(voice).__name__}; give a CustomVoice, a DesignedVoice or a ClonedVoice")
        self._require(MODEL_TYPE_OF[type(voice)], type(voice).__name__)
        if isinstance(voice, ClonedVoice):
            c = self.config.talker_config
            codebook_size = self.speech_tokenizer.config.decoder_config.codebook_size
            check_fits(voice.item, lambda: self.fingerprint, c.hidden_size, c.num_code_groups, codebook_size)
        return voice

    def _playback(self, reference: Ints | None, packet_frames: int) -> Playback:
        return Playback(
            stream=self.speech_tokenizer.stream(),
            reference=reference,
            packet_frames=whole_number(packet_frames, "packet_frames"),
            groups=self.config.talker_config.num_code_groups,
            sample_rate=self.speech_tokenizer.get_output_sample_rate(),
        )


def _load_speaker_encoder(
    checkpoint: Checkpoint, config: ModelConfig, dtype: np.dtype[Any]
) -> SpeakerEncoderWeights | None:
    c = config.speaker_encoder_config
    if c is None:
        return None
    return load(SpeakerEncoderWeights, checkpoint, speaker_encoder_sizes(c), "speaker_encoder.", dtype)
