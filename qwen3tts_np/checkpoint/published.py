"""The published checkpoints in numbers: expected files of a download, and totals of the key tables.

The revisions are those of the hub. Every model carries the same ``speech_tokenizer`` directory, which is
also published on its own, and the same tokenizer files.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Like = Literal["tiny", "tiny-1.7b", "0.6b", "1.7b"]  # the released sizes, and tiny ones with the same parts
ModelType = Literal["base", "custom_voice", "voice_design"]


@dataclass(frozen=True)
class PublishedFile:
    """A file by its content."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class PublishedWeights:
    """A safetensors file."""

    tensors: int
    parameters: int
    file: PublishedFile


@dataclass(frozen=True)
class PublishedModel:
    """One repository: ``Qwen/`` and the name."""

    name: str
    revision: str
    like: Like
    model_type: ModelType
    weights: PublishedWeights  # model.safetensors
    config: PublishedFile  # config.json


@dataclass(frozen=True)
class PublishedVoice:
    """A voice of the custom-voice models, as described by their model card."""

    id: int  # its row of the code embedding (spk_id of config.json)
    description: str
    language: str  # its native one, which suits it best; it speaks all ten
    dialect: str = ""  # of that language; spoken where the request's language is Chinese or "auto"

    @property
    def native(self) -> str:
        """Its language, and the dialect if it has one."""
        return f"{self.language} ({self.dialect} dialect)" if self.dialect else self.language


MODELS = (
    PublishedModel(
        name="Qwen3-TTS-12Hz-0.6B-Base",
        revision="5d83992436eae1d760afd27aff78a71d676296fc",
        like="0.6b",
        model_type="base",
        weights=PublishedWeights(
            tensors=478,
            parameters=914_643_008,
            file=PublishedFile(1_829_344_272, "180b3b10eb1c9f1b4db7806d5475bae3071c0243c299d49926bab1da3b6946f6"),
        ),
        config=PublishedFile(4494, "2e714c787c8edb98b05432685cddb634add2de4d4e645f653d68251ef72ba011"),
    ),
    PublishedModel(
        name="Qwen3-TTS-12Hz-0.6B-CustomVoice",
        revision="85e237c12c027371202489a0ec509ded67b5e4b5",
        like="0.6b",
        model_type="custom_voice",
        weights=PublishedWeights(
            tensors=402,
            parameters=905_788_672,
            file=PublishedFile(1_811_626_576, "bc3c7e785eb961179c25450d1acff03f839e0002f2f3a5aeb67b5735c0fa2adb"),
        ),
        config=PublishedFile(4908, "81aca2b6fac304944d8acf345272d8a9a727d5fc2e2e66b222ab4729340c7455"),
    ),
    PublishedModel(
        name="Qwen3-TTS-12Hz-1.7B-Base",
        revision="fd4b254389122332181a7c3db7f27e918eec64e3",
        like="1.7b",
        model_type="base",
        weights=PublishedWeights(
            tensors=480,
            parameters=1_928_677_440,
            file=PublishedFile(3_857_413_744, "38fc7fc51c5e776e840414b6fd443962e9411b9654888fd7913e4da643cb857c"),
        ),
        config=PublishedFile(4494, "b4f01752d15a488abde3e1ab44723ae4f4b9e68a4037257b098b3737893cc1f9"),
    ),
    PublishedModel(
        name="Qwen3-TTS-12Hz-1.7B-CustomVoice",
        revision="0c0e3051f131929182e2c023b9537f8b1c68adfe",
        like="1.7b",
        model_type="custom_voice",
        weights=PublishedWeights(
            tensors=404,
            parameters=1_916_676_352,
            file=PublishedFile(3_833_402_552, "38b1d5971bdbd982b561cccec982669a53b0537c3cf5e9bd4778ed07bb2f5137"),
        ),
        config=PublishedFile(4908, "17a07f527a1c25ea30b4e023a184482a23d3e279d697b1dc81b1bde498d29cf9"),
    ),
    PublishedModel(
        name="Qwen3-TTS-12Hz-1.7B-VoiceDesign",
        revision="5ecdb67327fd37bb2e042aab12ff7391903235d3",
        like="1.7b",
        model_type="voice_design",
        weights=PublishedWeights(
            tensors=404,
            parameters=1_916_676_352,
            file=PublishedFile(3_833_402_552, "391e8db219f292c515297cdceeb43e4eae67cdde35fa57e79a6a8a532fca0522"),
        ),
        config=PublishedFile(4421, "aecd2cc4c1fe9edef1cb7ca7c401685a43879ad43f3f9e883f1c6760b61731e0"),
    ),
)

VOICES = {
    "serena": PublishedVoice(3066, "warm, gentle young female voice", "Chinese"),
    "vivian": PublishedVoice(3065, "bright, slightly edgy young female voice", "Chinese"),
    "uncle_fu": PublishedVoice(3010, "seasoned male voice, low and mellow", "Chinese"),
    "ryan": PublishedVoice(3061, "dynamic male voice with a strong rhythm", "English"),
    "aiden": PublishedVoice(2861, "sunny American male voice, clear in the middle range", "English"),
    "ono_anna": PublishedVoice(2873, "playful female voice, light and nimble", "Japanese"),
    "sohee": PublishedVoice(2864, "warm female voice, rich in emotion", "Korean"),
    "eric": PublishedVoice(2875, "lively male voice, bright and slightly husky", "Chinese", "Sichuan"),
    "dylan": PublishedVoice(2878, "youthful male voice, clear and natural", "Chinese", "Beijing"),
}

CODEC_NAME = "Qwen3-TTS-Tokenizer-12Hz"
CODEC_REVISION = "7dd38ad4e9bad454aae9cd937d0cd577604fe229"
CODEC_WEIGHTS = PublishedWeights(
    tensors=496,
    parameters=170_557_441,
    file=PublishedFile(682_293_092, "836b7b357f5ea43e889936a3709af68dfe3751881acefe4ecf0dbd30ba571258"),
)

COMMON_FILES = {
    "vocab.json": PublishedFile(2_776_833, "ca10d7e9fb3ed18575dd1e277a2579c16d108e32f27439684afa0e10b1440910"),
    "merges.txt": PublishedFile(1_671_839, "599bab54075088774b1733fde865d5bd747cbcc7a547c5bc12610e874e26f5e3"),
    "tokenizer_config.json": PublishedFile(7344, "dc3c31c3bdaedd5016382bb3cbe07323026775ad51f5a4fb564505992ae4a670"),
    "generation_config.json": PublishedFile(245, "f1b90b4513f3b34c62851049e2492d7b4c5940daf1276f89c82b8ef04127f3aa"),
    "preprocessor_config.json": PublishedFile(127, "efdde1022ea9d76928bf7a9cd53139138f5ba2e466e837f08f6105ab1af1c119"),
    "speech_tokenizer/config.json": PublishedFile(
        2336, "ee65bb901c876664ab8707c487157aa1a6ee57c65969b28fb5ec9dc211e68167"
    ),
    "speech_tokenizer/preprocessor_config.json": PublishedFile(
        234, "fcb3805e597e786d4067706e602f6688524640f8d3396790e2e09b5942fcbdfb"
    ),
    "speech_tokenizer/model.safetensors": CODEC_WEIGHTS.file,
}


def published_files(model: PublishedModel | None) -> dict[str, PublishedFile]:
    """Every file of a published model by its name there; of the codec's own repository where ``model`` is None."""
    if model is None:
        inside = "speech_tokenizer/"
        return {name.removeprefix(inside): file for name, file in COMMON_FILES.items() if name.startswith(inside)}
    return {"config.json": model.config, "model.safetensors": model.weights.file, **COMMON_FILES}


def sha256_of(path: Path) -> str:
    """The digest of a file, as PublishedFile has it."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
