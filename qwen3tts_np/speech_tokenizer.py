"""``Qwen3TTSTokenizer``: audio to codes and codes to audio, with the call surface of the official class.

Official: ``Qwen3TTSTokenizer`` (``inference/qwen3_tts_tokenizer.py``) around ``Qwen3TTSTokenizerV2Model``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .arguments import array_of, codes_of, require_type, switch
from .audio.files import AudioLike, check_rate, read_audio, resample
from .checkpoint.config_file import read_codec_config
from .checkpoint.keys import check
from .checkpoint.pretrained import check_leftovers, compute_dtype, directory
from .checkpoint.safetensors import Checkpoint
from .codec.decoder import CodecDecoder, decode_chunked, decode_continuous
from .codec.encoder import CodecEncoder, encode
from .codec.past import Past
from .compiled.engine import Engine
from .config import CodecConfig
from .errors import RequestError, RequestTypeError
from .layout.specs import codec_specs
from .notices import notify
from .ops import Array, Ints, Wave, as_array
from .voice.reference_clip import ReferenceClipWarning, scale_problem

if TYPE_CHECKING:
    from .compiled.codec.decoder import CompiledCodecDecoder
    from .compiled.codec.encoder import CompiledCodecEncoder
    from .compiled.codec.pipeline import Stream

Codes = NDArray[np.int64]


class EncoderOutput(NamedTuple):
    """The result of :meth:`Qwen3TTSTokenizer.encode`: ``audio_codes`` holds the codes [frames, G] of each clip."""

    audio_codes: list[Codes]

    def __getitem__(self, key: Any) -> Any:
        """By name too, as the official ``ModelOutput``."""
        return getattr(self, key) if isinstance(key, str) else tuple.__getitem__(self, key)


class FeatureExtractor(NamedTuple):
    """The rate that clips are brought to before they are encoded."""

    sampling_rate: int  # Hz


@dataclass(frozen=True, eq=False)
class CodeStream:
    """A stream of codes that is decoded part by part: a function of the next [T, G] that gives their samples."""

    tokenizer: Qwen3TTSTokenizer
    past: Past | tuple[Stream, ...]  # in NumPy, with kernels

    def __call__(self, codes: Ints) -> Array:
        return self.tokenizer.decode_together([(self, codes)])[0]


@dataclass(frozen=True)
class Qwen3TTSTokenizer:
    """The codec of one checkpoint: ``encode``, ``decode``, and the rates between them."""

    config: CodecConfig
    encoder: CodecEncoder
    decoder: CodecDecoder
    checkpoint: Checkpoint
    engine: Engine
    decoder_weights: Literal["float32", "int16"] = "float32"
    """What the compiled decoder multiplies by where it is not packed beside the weights."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        dtype: Any = None,
        backend: str = "auto",
        threads: int | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        token: Any = None,
        torch_dtype: Any = None,
        **torch_arguments: Any,
    ) -> Qwen3TTSTokenizer:
        """Load a ``speech_tokenizer`` directory, or the one inside a model directory.

        ``dtype``: what activations are computed in, float32 (default) or float64, where the same code is its own
        oracle. The other arguments are those of ``Qwen3TTSModel.from_pretrained``.
        """
        check_leftovers(torch_arguments)
        kind = compute_dtype(torch_dtype if dtype is None else dtype)
        engine = Engine.choose(backend, kind, threads=threads)  # first: what is wrong costs no download
        folder = directory(
            pretrained_model_name_or_path,
            cache_dir,
            local_files_only=switch(local_files_only, "local_files_only"),
            revision=revision,
            token=token,
        )
        inside = folder / "speech_tokenizer"
        return cls.load(inside if inside.is_dir() else folder, engine)

    @classmethod
    def load(
        cls, folder: Path, engine: Engine, decoder_weights: Literal["float32", "int16"] = "float32"
    ) -> Qwen3TTSTokenizer:
        """Load a ``speech_tokenizer`` directory, to run as ``engine`` says."""
        config = read_codec_config(folder)
        checkpoint = Checkpoint.open(folder)
        check(checkpoint, codec_specs(config))
        groups, dtype = config.encoder_valid_num_quantizers, engine.dtype
        return cls(
            config,
            CodecEncoder.load(checkpoint, config.encoder_config, groups, dtype),
            CodecDecoder.load(checkpoint, config.decoder_config, dtype),
            checkpoint,
            engine,
            decoder_weights,
        )

    def __repr__(self) -> str:
        return f"Qwen3TTSTokenizer({self.get_model_type()}, {self.engine})"

    @property
    def model(self) -> Qwen3TTSTokenizer:
        """Itself: officially a wrapper around the network, whose rates and ``config`` are under the same names."""
        return self

    @property
    def feature_extractor(self) -> FeatureExtractor:
        """The attributes of the official object that scripts read."""
        return FeatureExtractor(self.config.input_sample_rate)

    @property
    def device(self) -> str:
        """Always "cpu"."""
        return "cpu"

    @cached_property
    def compiled_encoder(self) -> CompiledCodecEncoder:
        """The twin of ``encoder`` on compiled kernels, packed when first used: speech alone does not need it."""
        from .compiled.codec.encoder import CompiledCodecEncoder

        groups, team = self.config.encoder_valid_num_quantizers, self.engine.team
        twin = CompiledCodecEncoder.load(self.checkpoint, self.config.encoder_config, groups, team)
        self.checkpoint.release()
        return twin

    @cached_property
    def compiled_decoder(self) -> CompiledCodecDecoder:
        """The twin of ``decoder`` on compiled kernels, packed when first used."""
        from .compiled.codec.decoder import CompiledCodecDecoder

        c, team = self.config.decoder_config, self.engine.team
        twin = CompiledCodecDecoder.load(self.checkpoint, c, team, weights=self.decoder_weights)
        self.checkpoint.release()
        return twin

    def encode(
        self, audios: AudioLike | list[AudioLike], sr: int | None = None, return_dict: bool = True
    ) -> EncoderOutput:
        """The codes of one clip or of a list of clips.

        A clip is anything :func:`audio.files.read_audio` takes; ``sr`` is the sample rate in Hz of arrays that
        come without one. The codes of each are [frames, G], frames = ceil(samples / samples per frame) at the codec's
        rate. The result is a tuple as well, so ``return_dict=False`` gives the same.

        Trap: where a clip does not fill its last frame, the last codes depend on what follows. Alone, every layer pads
        on its own; in a list, silence follows up to the length of the longest clip, as in the official batch. For
        codes that do not depend on the rest of the list, encode clip by clip.
        """
        clips = audios if isinstance(audios, list) else [audios]
        waves = [self.load_audio(clip, self.get_input_sample_rate(), sr) for clip in clips]
        for wave in waves:
            if (problem := scale_problem(wave)) is not None:
                notify(f"the audio {problem}", ReferenceClipWarning)
        return EncoderOutput(self.encode_waves(waves))

    def encode_waves(self, waves: Sequence[Wave]) -> list[Codes]:
        """:meth:`encode` of waveforms [samples] that are at the codec's rate already, and have been looked at."""
        longest = max(map(len, waves), default=0)
        with self.engine.limited():
            return [self._encode(wave, longest) for wave in waves]

    def decode(self, encoded: Any, *, continuous: bool = False) -> tuple[list[Wave], int]:
        """(waveforms, sample rate): a float32 waveform [frames * samples per frame], -1 to 1, for each clip.

        ``encoded`` is what ``encode`` returned, a mapping with ``audio_codes`` or a list of such, or the codes
        themselves: an array [frames, G], a list of them, or a batch [B, frames, G] padded with -1.

        The official decoder restarts every 300 frames (24 s) with 25 frames of context, and so does this one, unless
        ``continuous``: then a clip is decoded as one stream, with the same result up to frame 300 (in NumPy, up to
        rounding).
        """
        continuous = switch(continuous, "continuous")
        clips = [self._check_codes(codes) for codes in _codes_of(encoded)]
        with self.engine.limited():
            waves = [self._decode(codes, continuous) if len(codes) else np.zeros(0) for codes in clips]
        return [wave.astype(np.float32) for wave in waves], self.get_output_sample_rate()

    def stream(self) -> CodeStream:
        """A new stream: a function of its next codes [T, G] that gives their samples.

        However the codes are cut into calls, the samples are those of ``decode(..., continuous=True)`` to the last bit.
        What a stream keeps of the past does not grow.
        """
        return CodeStream(self, self.compiled_decoder.stream() if self.engine.runs_kernels else Past())

    def decode_together(self, parts: Sequence[tuple[CodeStream, Ints]]) -> list[Array]:
        """The next codes [T, G] of several streams of this tokenizer -> the samples of each.

        They are the same bits as alone. Kernels read every weight once for all of them, so it takes less time.
        """
        if not isinstance(parts, list | tuple) or not all(isinstance(p, tuple) and len(p) == 2 for p in parts):
            raise RequestTypeError("parts must be a list of pairs: a stream, and its next codes")
        for stream, _ in parts:
            require_type(stream, CodeStream, "a stream")
        if len({id(stream) for stream, _ in parts}) < len(parts):
            raise RequestError("a stream is among the parts twice; its codes follow one another")
        waves: list[Array] = [np.zeros(0, self.engine.dtype)] * len(parts)
        codes = [self._check_codes(part) for _, part in parts]
        pasts: dict[int, tuple[Stream, ...]] = {}
        with self.engine.limited():
            for i, (stream, _) in enumerate(parts):
                if not len(codes[i]):
                    continue
                if isinstance(stream.past, Past):
                    waves[i] = decode_continuous(codes[i], self.decoder, stream.past)
                else:
                    pasts[i] = stream.past
            if pasts:
                decoded = self.compiled_decoder.decode_together([codes[i] for i in pasts], list(pasts.values()))
                for i, wave in zip(pasts, decoded, strict=True):
                    waves[i] = wave
        return waves

    def _decode(self, codes: Ints, continuous: bool) -> Array:
        """codes [T, G] -> waveform."""
        if continuous:
            return self.stream()(codes)
        if self.engine.runs_kernels:
            return self.compiled_decoder.decode_chunked(codes)
        return decode_chunked(codes, self.decoder)

    def load_audio(self, x: AudioLike, target_sr: int, sr: int | None = None) -> Wave:
        """A clip as a mono waveform [samples] at ``target_sr`` Hz; ``sr`` as in :meth:`encode`."""
        return resample(*read_audio(x, sr), check_rate(target_sr))

    def get_model_type(self) -> str:
        """The model type in the configuration."""
        return str(self.config.FIXED["model_type"])

    def get_input_sample_rate(self) -> int:
        """Hz, of the audio that is encoded."""
        return self.config.input_sample_rate

    def get_output_sample_rate(self) -> int:
        """Hz, of the audio that comes out."""
        return self.config.output_sample_rate

    def get_encode_downsample_rate(self) -> int:
        """Samples per frame of the audio that is encoded."""
        return self.config.encode_downsample_rate

    def get_decode_upsample_rate(self) -> int:
        """Samples per frame of the decoded audio."""
        return self.config.decode_upsample_rate

    def _encode(self, wave: Wave, longest: int) -> Codes:
        """The codes of one clip of a batch. Causality makes all silence after its last frame irrelevant."""
        samples = self.get_encode_downsample_rate()
        whole_frames = -(-len(wave) // samples) * samples
        padded = np.pad(wave, (0, min(whole_frames, longest) - len(wave)))
        if self.engine.runs_kernels and len(padded):
            return self.compiled_encoder.encode(padded).astype(np.int64)
        dtype = self.encoder.weights.downsample.weight.dtype
        return encode(padded.astype(dtype), self.encoder).astype(np.int64)

    def _check_codes(self, codes: Any) -> Ints:
        """One clip's codes as an int array [frames, G] without the padding at its end."""
        decoder = self.config.decoder_config
        array = codes_of(codes, "codes", decoder.num_quantizers)
        spoken = array[: int((array[:, 0] > -1).sum())]
        return codes_of(spoken, "codes", decoder.num_quantizers, decoder.codebook_size)


def _codes_of(encoded: Any) -> list[Any]:
    """The codes of each clip in whatever ``decode`` was given."""
    encoded = as_array(encoded)
    if hasattr(encoded, "audio_codes"):
        return _codes_of(encoded.audio_codes)
    if isinstance(encoded, Mapping):
        if "audio_codes" not in encoded:
            raise RequestError(f"no 'audio_codes' among the keys {sorted(map(str, encoded))} of what is to be decoded")
        return _codes_of(encoded["audio_codes"])
    if isinstance(encoded, list | tuple):
        return [codes for item in encoded for codes in _codes_of(item)]
    array = array_of(encoded, "audio_codes")
    return list(array) if array.ndim == 3 else [array]
