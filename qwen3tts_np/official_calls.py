"""The methods of the official class, each one a text or texts, a kind of voice, and a way to speak.

Official: ``Qwen3TTSModel.generate_custom_voice``, ``generate_voice_design``, ``generate_voice_clone`` and
``create_voice_clone_prompt``. ``stream_*`` and ``open_*`` are ours, with the same arguments.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, overload

from .arguments import switch
from .audio.files import AudioLike
from .cloning import VoiceCloner
from .config import ModelConfig
from .errors import RequestError
from .generate import ProgressCallback
from .ops import Ints, Wave
from .request import Request, Utterance, Voice, one_text, per_item, texts_of
from .speech_tokenizer import Qwen3TTSTokenizer
from .streaming import SpeechSession, SpeechStream
from .talker.generator import item_seeds, shared_seed
from .voice.prompt_item import VoiceClonePromptItem
from .voice_arguments import voices_of

Seed = int | Sequence[int | None] | None
Waves = tuple[list[Wave], int]  # waveforms, sample rate in Hz
WavesWithCodes = tuple[list[Wave], int, list[Ints]]  # and with return_codes=True the codes, [frames, G] each
Speech = Waves | WavesWithCodes


class OfficialCalls(ABC):
    """The official methods over ``prepare``, ``generate``, ``stream`` and ``open`` of ``model.py``."""

    config: ModelConfig
    speech_tokenizer: Qwen3TTSTokenizer

    @property
    @abstractmethod
    def cloner(self) -> VoiceCloner: ...

    @abstractmethod
    def prepare(self, text: str, voice: Voice, **options: Any) -> Request: ...

    @abstractmethod
    def generate(
        self, requests: Sequence[Request], *, joint_seed: int | None = None, progress: ProgressCallback = None
    ) -> list[Utterance]: ...

    @abstractmethod
    def stream(self, request: Request, *, packet_frames: int) -> SpeechStream: ...

    @abstractmethod
    def open(self, voice: Voice, **options: Any) -> SpeechSession: ...

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
        return self.cloner.voices(ref_audio, ref_text, x_vector_only_mode)

    @overload
    def generate_custom_voice(
        self,
        text: str | list[str],
        speaker: str | list[str],
        language: str | list[str] | None = None,
        instruct: str | list[str] | None = None,
        non_streaming_mode: bool = True,
        *,
        seed: Seed = None,
        return_codes: Literal[False] = False,
        progress: ProgressCallback = None,
        **sampling: Any,
    ) -> Waves: ...

    @overload
    def generate_custom_voice(
        self,
        text: str | list[str],
        speaker: str | list[str],
        language: str | list[str] | None = None,
        instruct: str | list[str] | None = None,
        non_streaming_mode: bool = True,
        *,
        seed: Seed = None,
        return_codes: Literal[True],
        progress: ProgressCallback = None,
        **sampling: Any,
    ) -> WavesWithCodes: ...

    @overload
    def generate_custom_voice(
        self,
        text: str | list[str],
        speaker: str | list[str],
        language: str | list[str] | None = None,
        instruct: str | list[str] | None = None,
        non_streaming_mode: bool = True,
        *,
        seed: Seed = None,
        return_codes: bool,
        progress: ProgressCallback = None,
        **sampling: Any,
    ) -> Speech: ...

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
        progress: ProgressCallback = None,
        **sampling: Any,
    ) -> Speech:
        """Speak with a voice of the model's table, optionally following an instruction.

        Trap: the official package drops the instruction on 0.6B models without a word; here it warns.
        """
        said = self._custom_voices("generate_custom_voice", texts_of(text), speaker, instruct)
        return self._speak(said, language, non_streaming_mode, seed, return_codes, progress, sampling)

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
        return self._stream(said, language, non_streaming_mode, packet_frames, seed, sampling)

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

    @overload
    def generate_voice_design(
        self,
        text: str | list[str],
        instruct: str | list[str],
        language: str | list[str] | None = None,
        non_streaming_mode: bool = True,
        *,
        seed: Seed = None,
        return_codes: Literal[False] = False,
        progress: ProgressCallback = None,
        **sampling: Any,
    ) -> Waves: ...

    @overload
    def generate_voice_design(
        self,
        text: str | list[str],
        instruct: str | list[str],
        language: str | list[str] | None = None,
        non_streaming_mode: bool = True,
        *,
        seed: Seed = None,
        return_codes: Literal[True],
        progress: ProgressCallback = None,
        **sampling: Any,
    ) -> WavesWithCodes: ...

    @overload
    def generate_voice_design(
        self,
        text: str | list[str],
        instruct: str | list[str],
        language: str | list[str] | None = None,
        non_streaming_mode: bool = True,
        *,
        seed: Seed = None,
        return_codes: bool,
        progress: ProgressCallback = None,
        **sampling: Any,
    ) -> Speech: ...

    def generate_voice_design(
        self,
        text: str | list[str],
        instruct: str | list[str],
        language: str | list[str] | None = None,
        non_streaming_mode: bool = True,
        *,
        seed: Seed = None,
        return_codes: bool = False,
        progress: ProgressCallback = None,
        **sampling: Any,
    ) -> Speech:
        """Speak with the voice that ``instruct`` describes; "" lets the model choose one."""
        said = self._designed_voices("generate_voice_design", texts_of(text), instruct)
        return self._speak(said, language, non_streaming_mode, seed, return_codes, progress, sampling)

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
        return self._stream(said, language, non_streaming_mode, packet_frames, seed, sampling)

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

    @overload
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
        return_codes: Literal[False] = False,
        progress: ProgressCallback = None,
        **sampling: Any,
    ) -> Waves: ...

    @overload
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
        return_codes: Literal[True],
        progress: ProgressCallback = None,
        **sampling: Any,
    ) -> WavesWithCodes: ...

    @overload
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
        return_codes: bool,
        progress: ProgressCallback = None,
        **sampling: Any,
    ) -> Speech: ...

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
        progress: ProgressCallback = None,
        **sampling: Any,
    ) -> Speech:
        """Speak with the voice of a reference: a clip, or what :meth:`create_voice_clone_prompt` made of one.

        With ``x_vector_only_mode`` only the speaker embedding is used; otherwise the model continues the reference,
        whose transcript ``ref_text`` is then needed. Trap: this call is streaming by default, the others are not.
        """
        reference = (ref_audio, ref_text, x_vector_only_mode, voice_clone_prompt)
        said = self._cloned_voices("generate_voice_clone", texts_of(text), *reference)
        return self._speak(said, language, non_streaming_mode, seed, return_codes, progress, sampling)

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
        return self._stream(said, language, non_streaming_mode, packet_frames, seed, sampling)

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

    def _require(self, model_type: str, what: str) -> None:
        if self.config.tts_model_type != model_type:
            raise RequestError(f"{what} needs a {model_type} model; this is a {self.config.tts_model_type} model")

    def _custom_voices(self, method: str, texts: list[str], speaker: Any, instruct: Any) -> list[tuple[str, Voice]]:
        """Every text with its voice. Officially a speaker of None is none, not the model's first."""
        self._require("custom_voice", method)
        speakers = per_item(speaker, len(texts), "speaker", "")
        return self._with_voices(texts, speaker=speakers, instruct=instruct)

    def _designed_voices(self, method: str, texts: list[str], instruct: Any) -> list[tuple[str, Voice]]:
        self._require("voice_design", method)
        return self._with_voices(texts, instruct=instruct)

    def _cloned_voices(
        self, method: str, texts: list[str], ref_audio: Any, ref_text: Any, x_vector_only_mode: Any, prompt: Any
    ) -> list[tuple[str, Voice]]:
        """Every text with its voice. Officially a transcript is needed unless ``x_vector_only_mode`` is True."""
        self._require("base", method)
        alone = False if x_vector_only_mode is None else x_vector_only_mode
        return self._with_voices(
            texts, ref_audio=ref_audio, ref_text=ref_text, x_vector_only_mode=alone, voice_clone_prompt=prompt
        )

    def _with_voices(self, texts: list[str], **arguments: Any) -> list[tuple[str, Voice]]:
        return list(zip(texts, voices_of(self.config, self.cloner, len(texts), **arguments), strict=True))

    def _speak(
        self,
        said: list[tuple[str, Voice]],
        language: str | list[str] | None,
        non_streaming_mode: bool,
        seed: Seed,
        return_codes: bool,
        progress: ProgressCallback,
        sampling: dict[str, Any],
    ) -> Speech:
        """All texts together; one seed for several of them is the official joint draw."""
        languages = per_item(language, len(said), "language", "auto")
        streaming = not switch(non_streaming_mode, "non_streaming_mode")
        return_codes = switch(return_codes, "return_codes")
        requests = [
            self.prepare(*pair, language=spoken, streaming=streaming, seed=own, **sampling)
            for pair, spoken, own in zip(said, languages, item_seeds(seed, len(said)), strict=True)
        ]
        spoken = self.generate(requests, joint_seed=shared_seed(seed, len(said)), progress=progress)
        waves, codes = [one.samples for one in spoken], [one.codes for one in spoken]
        rate = self.speech_tokenizer.get_output_sample_rate()
        return (waves, rate, codes) if return_codes else (waves, rate)

    def _stream(
        self,
        said: list[tuple[str, Voice]],
        language: str | None,
        non_streaming_mode: bool,
        packet_frames: int,
        seed: Seed,
        sampling: dict[str, Any],
    ) -> SpeechStream:
        (pair,), (own,) = said, item_seeds(seed, 1)
        (spoken,) = per_item(language, 1, "language", "auto")
        streaming = not switch(non_streaming_mode, "non_streaming_mode")
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
