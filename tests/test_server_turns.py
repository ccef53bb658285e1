"""The turns of a server's model: who is heard when, of those who come together and of those who come later."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qwen3tts_np import Qwen3TTSModel
from qwen3tts_np.server.client import TextClient
from qwen3tts_np.server.engine import Room
from qwen3tts_np.server.metrics import Metrics
from qwen3tts_np.server.outlet import End
from qwen3tts_np.server.settings import REFERENCE_SLICE
from qwen3tts_np.speech import live
from qwen3tts_np.speech.live import live_text
from qwen3tts_np.voice.prompt_item import VoiceClonePromptItem

PLACES = 8
TEXT = "Hello there, how are you? I am fine, and so are all of us who are here."


class Heard:
    """An outlet that keeps everything."""

    left, unread = False, 0

    def __init__(self) -> None:
        self.items: list[object] = []

    def put(self, item: object) -> None:
        self.items.append(item)

    @property
    def samples(self) -> np.ndarray:
        return np.concatenate([item for item in self.items if not isinstance(item, End)])


@pytest.fixture(scope="module")
def model(synthetic: Callable[..., Path]) -> Qwen3TTSModel:
    return Qwen3TTSModel.from_pretrained(synthetic("tiny", "custom_voice"), threads=1)


def newcomer(model: Qwen3TTSModel, seed: int) -> TextClient:
    text = live_text(model, TEXT, seed=seed, max_new_tokens=25, runaway_guard=True)
    return TextClient(text, Heard())  # type: ignore[arg-type]


def test_of_eight_who_come_together_the_last_is_heard_two_frames_after_the_prompts(model):
    room = Room("m", model, PLACES, 0, Metrics())
    everybody = [newcomer(model, seed) for seed in range(PLACES)]
    room.enter(everybody[0])
    room.turn()  # the first has begun when the others come
    for client in everybody[1:]:
        room.enter(client)
    turns = 0
    while not all(client.outlet.items for client in everybody):
        room.turn()
        turns += 1
        assert all(client.packets.written <= 2 for client in everybody)
    assert turns <= PLACES - 1 + 2  # one for each prompt
    while room.speaking or room.between:
        room.turn()
    for seed, client in enumerate(everybody):
        alone = live.stream(model, TEXT, seed=seed, max_new_tokens=25, runaway_guard=True)
        np.testing.assert_array_equal(client.outlet.samples, np.concatenate(list(alone)))


def test_who_has_been_heard_goes_on_in_every_turn_while_newcomers_are_read(model):
    room = Room("m", model, PLACES, 0, Metrics())
    first = newcomer(model, 0)
    room.enter(first)
    while not first.outlet.items:
        room.turn()
    for seed in range(1, 4):
        room.enter(newcomer(model, seed))
    while any(not client.packets.written for client in room.speaking.values()):
        before = first.packets.written
        room.turn()
        assert first.packets.written == before + 1


def test_a_newcomer_s_reference_is_decoded_in_slices_while_others_are_heard(synthetic):
    model = Qwen3TTSModel.from_pretrained(synthetic("tiny", "base"), threads=1)
    alone = VoiceClonePromptItem(None, np.ones(64, np.float32) / 8, True, False)
    codes = np.random.default_rng(0).integers(0, 100, (45, 16))
    in_context = VoiceClonePromptItem(codes, alone.ref_spk_embedding, False, True, "What Ada says.")
    room, limits = Room("m", model, 2, 0, Metrics()), {"max_new_tokens": 40, "runaway_guard": True}
    first, second = (
        TextClient(live_text(model, TEXT, voice_clone_prompt=item, seed=1, **limits), Heard())  # type: ignore[arg-type]
        for item in (alone, in_context)
    )
    room.enter(first)
    while not first.outlet.items:
        room.turn()
    room.enter(second)
    left = [len(codes)]
    while not second.outlet.items:
        room.turn()
        left.append(second.packets.of_reference)
    assert left[:4] == [45 - i * REFERENCE_SLICE for i in range(4)]  # later the first may have ended
    while room.speaking or room.between:
        room.turn()
    expected = np.concatenate(list(live.stream(model, TEXT, voice_clone_prompt=in_context, seed=1, **limits)))
    np.testing.assert_array_equal(second.outlet.samples, expected)
