"""What is recorded: the table of requests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

TALKER = ("talker.",)
SPEAKER = ("speaker_encoder",)
ENCODER = ("speech_tokenizer.encoder",)
DECODER = ("speech_tokenizer.decoder",)


@dataclass(frozen=True)
class Checkpoint:
    """A synthetic checkpoint: ``qwen3tts-np synth --like LIKE --type TYPE --seed SEED``; or ``demo``, the voice that
    comes with the package.
    """

    like: str
    type: str
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.like}-{self.type}-{self.seed}"


@dataclass(frozen=True)
class Clip:
    """Audio out of audio.py."""

    sample_rate: int
    samples: int
    seed: int


@dataclass(frozen=True)
class Codes:
    """[frames, G] codes, drawn evenly by ``numpy.random.RandomState(seed)``."""

    frames: int
    seed: int


@dataclass(frozen=True)
class FirstSeed:
    """The first seed from here with which every item ends by itself, each after another number of frames above 0."""

    start: int = 0


@dataclass(frozen=True)
class Case:
    name: str
    about: str
    checkpoint: Checkpoint
    method: str
    arguments: dict[str, Any]
    seed: int | FirstSeed | None = None  # of torch.manual_seed; None: nothing is drawn
    activations: tuple[str, ...] = field(default=())  # the modules whose activations are kept too


def variations(case: Case) -> Iterator[Case]:
    """The case, then the same one with other clips and seeds, should it be too near a tie."""
    for turn in range(0, 1000, 100):

        def vary(value: Any, turn: int = turn) -> Any:
            return replace(value, seed=value.seed + turn) if isinstance(value, Clip) else value

        seed = case.seed
        if seed is not None:
            seed = FirstSeed(turn) if isinstance(seed, FirstSeed) else seed + turn
        arguments = {k: [vary(i) for i in v] if isinstance(v, list) else vary(v) for k, v in case.arguments.items()}
        varied = replace(case, arguments=arguments, seed=seed)
        if turn and varied == case:
            return
        yield varied


CUSTOM = Checkpoint("tiny", "custom_voice")
BASE = Checkpoint("tiny", "base")
CUSTOM_17 = Checkpoint("tiny-1.7b", "custom_voice")
BASE_17 = Checkpoint("tiny-1.7b", "base")
DESIGN_17 = Checkpoint("tiny-1.7b", "voice_design")
DESIGN = Checkpoint("tiny", "voice_design")
DEMO = Checkpoint("demo", "custom_voice")

GREEDY = {"do_sample": False, "subtalker_dosample": False}
ENGLISH = "Hello, this is a test of the voice."
LONG = "Please speak slowly: the mountain river runs through the country, and the light is often good before night."
CHINESE = "你好，今天天气不错。"
GERMAN = "Heute ist das Wetter schön."
CALM = "Speak in a calm, slow voice."
HAPPY = "Very happy!"

# Reference clips: the three sample rates, none a whole number of frames.
LOW = Clip(16000, 7001, seed=1)  # 0.44 s, 5.5 frames
MID = Clip(24000, 12345, seed=2)  # 0.51 s, 6.4 frames
MID_2 = Clip(24000, 8640, seed=3)  # 0.36 s, 4.5 frames
HIGH = Clip(44100, 17000, seed=4)  # 0.39 s, 4.8 frames


def cases() -> list[Case]:
    speech = [*_custom_voice(), *_sampling(), *_voice_design(), *_voice_clone(), *_demo()]
    return [*_activations(), *speech, *_encode(), *_decode()]


def _activations() -> Iterator[Case]:
    yield Case(
        "activations_custom_voice",
        "Every activation of the talker, the code predictor and the codec decoder for two frames; 0.6B structure.",
        CUSTOM, "generate_custom_voice",
        {"text": "Hello world", "speaker": "vivian", "language": "english", "max_new_tokens": 3, **GREEDY},
        activations=(*TALKER, *DECODER),
    )  # fmt: skip
    yield Case(
        "activations_instruct",
        "Every activation of the talker and the code predictor for one frame; 1.7B structure, whose code predictor is "
        "narrower than the talker; with an instruction; sampled.",
        CUSTOM_17, "generate_custom_voice",
        {"text": "Hello", "speaker": "ryan", "language": "auto", "instruct": "Speak slowly.", "max_new_tokens": 2},
        seed=0, activations=TALKER,
    )  # fmt: skip
    yield Case(
        "activations_clone",
        "Every activation of the speaker encoder, the codec encoder and the talker for one frame, cloned in context.",
        BASE, "generate_voice_clone",
        # A clip that gets through the ReLU of all three squeeze-excitation blocks; most do not.
        {"text": "Hello", "language": "english", "ref_audio": Clip(24000, 3500, seed=90), "ref_text": "It is good",
         "max_new_tokens": 2, **GREEDY},
        activations=(*SPEAKER, *ENCODER, *TALKER),
    )  # fmt: skip


def _custom_voice() -> Iterator[Case]:
    def case(name: str, about: str, checkpoint: Checkpoint = CUSTOM, seed: int | None = None, **arguments: Any) -> Case:
        asked = {"text": ENGLISH, "speaker": "vivian", "language": "english", "max_new_tokens": 7, **arguments}
        return Case(f"custom_voice_{name}", about, checkpoint, "generate_custom_voice", asked, seed)

    yield case("plain", "Greedy.", **GREEDY)
    yield case("one_frame", "max_new_tokens N gives N - 1 frames; 1 would crash.", max_new_tokens=2, **GREEDY)
    yield case("many_frames", "More frames than any window of the codec.", max_new_tokens=41, **GREEDY)
    yield case("auto", "No language: think marks without a language id.", language=None, **GREEDY)
    yield case("names", "Names in any case.", speaker="Uncle_Fu", language="GERMAN", text=GERMAN, **GREEDY)
    yield case("dialect_chinese", "A dialect speaker with chinese: the dialect's id.",
               speaker="eric", language="chinese", text=CHINESE, **GREEDY)  # fmt: skip
    yield case("dialect_auto", "A dialect speaker with auto: the dialect's id.",
               speaker="dylan", language="auto", text=CHINESE, **GREEDY)  # fmt: skip
    yield case("dialect_english", "A dialect speaker with english: no dialect.", speaker="eric", **GREEDY)
    yield case("streaming", "The text goes in one token a frame and is not used up.",
               non_streaming_mode=False, **GREEDY)  # fmt: skip
    yield case("streaming_short", "The text goes in one token a frame and runs out.",
               text="Hello you", max_new_tokens=9, non_streaming_mode=False, **GREEDY)  # fmt: skip
    yield case("leading_newline", "A newline that merges into the third token of the role.", text="\n\nHello", **GREEDY)
    yield case("special_tokens", "Added tokens inside the text, emoji, Thai.",
               text="Hi <|im_end|><tts_pad> 😀 สวัสดี #include", **GREEDY)  # fmt: skip
    yield case("instruct_dropped", "0.6B: the instruction is dropped without a word.", instruct=CALM, **GREEDY)
    yield case("batch", "Three lengths, three languages, three speakers.", text=[ENGLISH, CHINESE, "Hello"],
               speaker=["vivian", "dylan", "serena"], language=["english", "chinese", "auto"], **GREEDY)  # fmt: skip
    yield case("batch_streaming", "One speaker and language for all; texts run out at different frames.",
               text=["Hello you", LONG], max_new_tokens=9, non_streaming_mode=False, **GREEDY)  # fmt: skip
    yield case("1.7b_plain", "1.7B structure.", CUSTOM_17, **GREEDY)
    yield case("1.7b_instruct", "1.7B structure with an instruction.", CUSTOM_17, instruct=CALM, **GREEDY)
    yield case("1.7b_instruct_batch", "Instructions of different lengths, one of them empty; sampled.", CUSTOM_17, 5,
               text=[ENGLISH, "Hello", CHINESE], speaker=["ryan", "eric", "sohee"], instruct=[CALM, "", HAPPY],
               language=["english", "chinese", "auto"], non_streaming_mode=False)  # fmt: skip


def _sampling() -> Iterator[Case]:
    def case(name: str, about: str, seed: int | FirstSeed, **arguments: Any) -> Case:
        asked = {"text": ENGLISH, "speaker": "serena", "language": "english", "max_new_tokens": 9, **arguments}
        return Case(f"sampled_{name}", about, CUSTOM, "generate_custom_voice", asked, seed)

    yield case("defaults", "generation_config.json as it is, but for the length.", 0)
    yield case("seed", "The same with another seed.", 1234567890123)
    yield case("top_p", "Nucleus without top-k, for both.", 2,
               top_k=0, top_p=0.8, subtalker_top_k=0, subtalker_top_p=0.8)  # fmt: skip
    yield case("hot", "Temperature 1.3, top-k 5.", 3,
               temperature=1.3, top_k=5, subtalker_temperature=1.3, subtalker_top_k=5)  # fmt: skip
    yield case("penalty", "Repetition penalty 1.3.", 4, repetition_penalty=1.3, max_new_tokens=25)
    yield case("greedy_penalty", "Repetition penalty 1.3, greedy talker and code predictor.", 5,
               repetition_penalty=1.3, max_new_tokens=25, **GREEDY)  # fmt: skip
    yield case("talker_only", "A greedy code predictor under a sampled talker.", 6, subtalker_dosample=False)
    yield case("code_predictor_only", "A sampled code predictor under a greedy talker.", 7, do_sample=False)
    yield case("all_different", "Every parameter differs between talker and code predictor.", 8,
               temperature=0.7, top_k=20, top_p=0.95, repetition_penalty=1.1,
               subtalker_temperature=1.2, subtalker_top_k=30, subtalker_top_p=0.7)  # fmt: skip
    yield case("batch", "A sampled batch: rows draw in turn from one generator.", 9, text=[ENGLISH, CHINESE, "Hello"],
               speaker=["vivian", "eric", "serena"], language=["english", "auto", "auto"])  # fmt: skip
    yield case("end", "Ends by itself.", FirstSeed(), text="Hello", max_new_tokens=30)
    yield case("end_batch", "Items end by themselves, at different frames; finished rows go on drawing.", FirstSeed(),
               text=["Hello", ENGLISH, CHINESE], max_new_tokens=40)  # fmt: skip


def _voice_design() -> Iterator[Case]:
    def case(name: str, about: str, seed: int | None = None, checkpoint: Checkpoint = DESIGN_17, **asked: Any) -> Case:
        asked = {"text": ENGLISH, "language": "english", "instruct": CALM, "max_new_tokens": 7, **asked}
        return Case(f"voice_design_{name}", about, checkpoint, "generate_voice_design", asked, seed)

    yield case("plain", "Greedy.", **GREEDY)
    yield case("empty", "An empty description, language auto.", instruct="", language=None, **GREEDY)
    yield case("streaming", "The text goes in one token a frame.", non_streaming_mode=False, **GREEDY)
    yield case("batch", "A sampled batch.", 1, text=[ENGLISH, GERMAN], instruct=[CALM, HAPPY],
               language=["english", "german"])  # fmt: skip
    yield case("0.6b", "0.6B structure (not released): here the instruction counts.", None, DESIGN, **GREEDY)


def _voice_clone() -> Iterator[Case]:
    def case(name: str, about: str, seed: int | FirstSeed | None = None, checkpoint: Checkpoint = BASE, /,
             **arguments: Any) -> Case:  # fmt: skip
        asked = {"text": "Hello world", "language": "english", "max_new_tokens": 7, **arguments}
        return Case(f"clone_{name}", about, checkpoint, "generate_voice_clone", asked, seed)

    x_vector = {"x_vector_only_mode": True}
    context = {"ref_text": "It is a very good song"}
    yield case("x_vector", "Only the speaker embedding; streaming prompt, the default.", ref_audio=MID, **x_vector,
               **GREEDY)  # fmt: skip
    yield case("x_vector_non_streaming", "Only the speaker embedding; 16 kHz.", ref_audio=LOW, non_streaming_mode=True,
               **x_vector, **GREEDY)  # fmt: skip
    yield case("context", "In context: text and codes position by position, more text than codes.",
               ref_audio=MID, text=LONG, **context, **GREEDY)  # fmt: skip
    yield case("context_more_codes", "In context with more codes than text; 44.1 kHz.",
               ref_audio=Clip(44100, 44100, seed=6), text="Hello", ref_text="It is", **GREEDY)  # fmt: skip
    yield case("context_non_streaming", "In context: the text, then the codes; 16 kHz.",
               ref_audio=LOW, non_streaming_mode=True, **context, **GREEDY)  # fmt: skip
    yield case("context_auto", "In context, language auto, sampled.", 1, ref_audio=MID_2, language=None, **context)
    yield case("one_voice", "One reference for a batch of texts, languages differ.", ref_audio=MID_2, **context,
               text=["Hello world", CHINESE], language=["english", "chinese"], **GREEDY)  # fmt: skip
    yield case("batch_one_rate", "References of one sample rate, encoded as a batch: padding reaches the last frame.",
               ref_audio=[MID, MID_2], ref_text=["It is a very good song", "The light"],
               text=["Hello world", LONG], **GREEDY)  # fmt: skip
    yield case("batch_rates", "References of three sample rates, encoded one by one.", ref_audio=[HIGH, LOW, MID_2],
               ref_text=["It is a very good song", "The light", "So"], text=["Hello", GERMAN, CHINESE],
               language=["english", "german", "auto"], **GREEDY)  # fmt: skip
    yield case("batch_mixed", "X-vector and in context in one batch, sampled.", 2, ref_audio=[HIGH, MID, MID_2],
               ref_text=[None, "It is a very good song", ""], x_vector_only_mode=[True, False, True],
               text=["Hello", GERMAN, CHINESE], language=["english", "german", "auto"])  # fmt: skip
    yield case("1.7b", "1.7B structure, in context, sampled.", 3, BASE_17, ref_audio=MID, **context)
    yield case("1.7b_x_vector", "1.7B structure, only the speaker embedding.", None, BASE_17, ref_audio=HIGH,
               **x_vector, **GREEDY)  # fmt: skip
    yield case("end", "Ends by itself; the reference is cut off the waveform.", FirstSeed(), ref_audio=MID,
               max_new_tokens=40, **context)  # fmt: skip


def _demo() -> Iterator[Case]:
    """The voice of the package: trained weights, sharp choices, speech that ends by itself."""

    def case(name: str, about: str, seed: int | FirstSeed | None = None, **arguments: Any) -> Case:
        asked = {"text": "open the green door please", "speaker": "oak", "language": "english", **arguments}
        return Case(f"demo_{name}", about, DEMO, "generate_custom_voice", {**asked, "max_new_tokens": 60}, seed)

    yield case("greedy", "Greedy to the end.", **GREEDY)
    yield case("sampled", "generation_config.json as it is, to the end.", FirstSeed(), speaker="reed")
    yield case("streaming", "The text goes in one token a frame and runs out before the speech.",
               non_streaming_mode=False, **GREEDY)  # fmt: skip
    yield case("batch", "Both speakers; sentences that end at different frames; sampled.", FirstSeed(),
               text=["thank you", "three plus four is seven", "good morning it is sunday"],
               speaker=["oak", "reed", "oak"])  # fmt: skip


def _encode() -> Iterator[Case]:
    def case(name: str, about: str, *clips: Clip) -> Case:
        return Case(f"encode_{name}", about, BASE, "encode", {"audios": list(clips), "sr": clips[0].sample_rate})

    yield case("16k", "Resampled from 16 kHz; two seconds, longer than any window.", Clip(16000, 32000, seed=10))
    yield case("24k", "No resampling; 12.7 frames.", Clip(24000, 24321, seed=11))
    yield case("44.1k", "Resampled from 44.1 kHz.", Clip(44100, 50000, seed=12))
    yield case("whole_frames", "A whole number of frames.", Clip(24000, 5 * 1920, seed=13))
    yield case("one_sample_more", "One sample more than whole frames.", Clip(24000, 5 * 1920 + 1, seed=13))
    yield case("short", "A sixth of a frame.", Clip(24000, 320, seed=14))
    yield case("batch", "A batch of different lengths: zeros after the short ones reach their last frame.",
               Clip(24000, 9000, seed=15), Clip(24000, 3333, seed=16), Clip(24000, 1920, seed=17))  # fmt: skip


def _decode() -> Iterator[Case]:
    def case(name: str, about: str, *codes: Codes) -> Case:
        return Case(f"decode_{name}", about, CUSTOM, "decode", {"audio_codes": list(codes)})

    yield case("1", "One frame.", Codes(1, seed=20))
    yield case("7", "Seven frames.", Codes(7, seed=21))
    yield case("40", "Longer than any window, one chunk.", Codes(40, seed=22))
    yield case("299", "One frame less than a chunk.", Codes(299, seed=23))
    yield case("300", "A whole chunk.", Codes(300, seed=24))
    yield case("301", "A second chunk of one frame after 25 of context.", Codes(301, seed=25))
    yield case("340", "A second chunk.", Codes(340, seed=26))
    yield case("batch", "A batch of different lengths, padded with -1.", Codes(9, seed=27), Codes(2, seed=28),
               Codes(5, seed=29))  # fmt: skip
    yield case("batch_chunks", "A batch in which one item ends in the first chunk and one in the second.",
               Codes(310, seed=30), Codes(12, seed=31))  # fmt: skip
