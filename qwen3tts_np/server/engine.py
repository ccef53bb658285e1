"""The thread that speaks: it owns all models, and a running batch of each.

Whatever touches a model is done here, between two frames: :meth:`Engine.call` hands work over, and clients are given
places in the order in which they came. A client between two pieces of its text keeps its place before newcomers.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from ..errors import RequestError
from ..model import Qwen3TTSModel
from ..notices import heard
from ..running_batch import RunningBatch
from ..streaming import decode_waiting
from .client import Client
from .metrics import Metrics
from .outlet import End
from .refusal import Refusal
from .settings import POSITIONS, REFERENCE_SLICE, TOGETHER

T = TypeVar("T")


class Room:
    """The places of one model, and those who wait for one."""

    def __init__(self, name: str, model: Qwen3TTSModel, places: int, queue: int, metrics: Metrics) -> None:
        self.name: str = name
        self.model: Qwen3TTSModel = model
        self.batch: RunningBatch = model.open_batch(places=places, positions=POSITIONS)
        self._places = places
        self.speaking: dict[int, Client] = {}  # place -> who has it
        self.between: deque[Client] = deque()  # those between two pieces
        self.waiting: deque[Client] = deque()  # newcomers
        self._queue, self._metrics = queue, metrics

    @property
    def full(self) -> bool:
        """Whether a newcomer would have to wait longer than the queue is."""
        return len(self.waiting) + len(self.between) + len(self.speaking) >= self.batch.places + self._queue

    def enter(self, client: Client) -> None:
        """Wait for a place. Refusal where too many do."""
        if self.full:
            seconds = str(max(1, round(self._metrics.usual_seconds)))
            raise Refusal(
                429,
                f"{len(self.waiting)} requests wait for a place already, and this server lets {self._queue} (--queue)",
                code="queue_full",
                headers={"Retry-After": seconds},
            )
        self.waiting.append(client)

    @property
    def resting(self) -> bool:
        """Whether a turn would do nothing."""
        coming = any(client.ready or client.outlet.left for client in (*self.between, *self.waiting))
        leaving = any(client.outlet.left for client in self.speaking.values())
        return self.batch.idle and not leaving and not (coming and self.batch.free)

    def turn(self) -> None:
        """Give places back and out, and write one frame of everybody who speaks."""
        self._see_off()
        self._admit(self.between)
        self._admit(self.waiting)
        if self.batch.idle:
            return
        step = self.batch.step(prompts_first=not any(client.heard for client in self.speaking.values()))
        self._metrics.frames(self.name, len(step.places))
        for place, codes in zip(step.places.tolist(), step.codes, strict=True):
            self.speaking[place].packets.keep(codes)
        cut = [place for place, client in self.speaking.items() if client.cut and place not in step.ended]
        for place in cut:
            self.batch.leave(place)
        over = (*step.ended, *cut)
        self._decode({self.speaking[place] for place in over})
        for place in over:
            client = self.speaking.pop(place)
            if place in step.failed:
                client.outlet.put(End(error=step.failed[place]))
            elif self._guarded(client, client.end):
                self.between.append(client)

    def _decode(self, over: Collection[Client]) -> None:
        """The samples of frames that wait: of everybody, where it is time for one.

        A reference is decoded first, in slices where somebody has been heard.
        """
        everybody = [(client, client.packets) for client in self.speaking.values()]
        some = REFERENCE_SLICE if any(client.heard for client, _ in everybody) else sys.maxsize
        wanted = [
            (client, packets, min(packets.of_reference, some))
            for client, packets in everybody
            if packets.of_reference and client not in over
        ]
        others = [(client, packets) for client, packets in everybody if not packets.of_reference or client in over]
        full = sum(packets.fresh for _, packets in others) >= TOGETHER
        if full or any(client.due or client in over for client, _ in others):
            wanted += [(client, packets, packets.waiting) for client, packets in others if packets.fresh]
        try:
            waves = decode_waiting([(packets, count) for _, packets, count in wanted])
        except Exception as defect:
            for client, _, _ in wanted:
                self._fail(client, defect)
            return
        for (client, _, _), wave in zip(wanted, waves, strict=True):
            if len(wave):
                self._guarded(client, client.hear, wave)

    def begin_again(self, error: Exception) -> None:
        """After a defect: end the speech of those who have a place, and give the others a batch that is intact."""
        for client in self.speaking.values():
            client.outlet.put(End(error=error))
        self.speaking.clear()
        self.batch.close()
        self.batch = self.model.open_batch(places=self._places, positions=POSITIONS)

    def fail_all(self, error: Exception) -> None:
        """End everybody's speech."""
        for client in (*self.speaking.values(), *self.between, *self.waiting):
            client.outlet.put(End(error=error))
        self.speaking.clear()
        self.between.clear()
        self.waiting.clear()
        self.batch.close()

    def _see_off(self) -> None:
        """Those who have gone away give their places back."""
        for place, client in list(self.speaking.items()):
            if client.outlet.left:
                self.batch.leave(place)
                del self.speaking[place]
        for queue in (self.between, self.waiting):
            for client in [client for client in queue if client.outlet.left]:
                queue.remove(client)

    def _admit(self, queue: deque[Client]) -> None:
        for client in [client for client in queue if client.ready]:
            if not self.batch.free:
                return
            queue.remove(client)
            self._guarded(client, self._seat, client)

    def _seat(self, client: Client) -> None:
        request = client.begin()
        if request is not None:
            self.speaking[self.batch.join(request)] = client

    def _guarded(self, client: Client, work: Callable[..., None], *arguments: Any) -> bool:
        """Do ``work``; what goes wrong ends this client's speech and nobody else's. Whether all went well."""
        try:
            work(*arguments)
        except Exception as e:
            self._fail(client, e)
            return False
        return True

    def _fail(self, client: Client, error: Exception) -> None:
        """End a client's speech."""
        if not isinstance(error, RequestError):
            traceback.print_exception(error, file=sys.stderr)
        client.outlet.put(End(error=error))
        client.outlet.left = True  # whatever place it has


class Engine:
    """The rooms of all models, and the thread in which they speak."""

    def __init__(self, models: Mapping[str, Qwen3TTSModel], places: int, queue: int, metrics: Metrics) -> None:
        self.rooms: dict[str, Room] = {
            name: Room(name, model, places, queue, metrics) for name, model in models.items()
        }
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._closing = False
        self.on_failure: Callable[[], None] = lambda: None  # called where the thread ends by itself
        self._thread = threading.Thread(target=self._run, name="speech", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End all speech, and wait for the thread."""
        self._closing = True
        self.nudge()
        self._thread.join()

    def nudge(self) -> None:
        """Look again at who is there: somebody has left, or is ready."""
        self._work.put(lambda: None)

    def call(self, work: Callable[[], T]) -> Future[tuple[T, list[str]]]:
        """Do ``work`` between two frames: what it returns, and the warnings it gave."""
        future: Future[tuple[T, list[str]]] = Future()

        def do() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                with heard() as notes:
                    result = work()
            except Exception as e:  # it belongs to whoever waits for the future
                future.set_exception(e)
            else:
                future.set_result((result, notes))

        self._work.put(do)
        return future

    def gauges(self) -> dict[str, dict[str, int]]:
        """What is counted now: name -> model -> value."""
        rooms = self.rooms.values()
        return {
            "queue": {room.name: len(room.waiting) for room in rooms},
            "places": {room.name: room.batch.places for room in rooms},
            "places_in_use": {room.name: len(room.speaking) for room in rooms},
        }

    def _run(self) -> None:
        try:
            while not self._closing:
                self._do_work()
                for room in self.rooms.values():
                    try:
                        room.turn()
                    except Exception as defect:  # a defect of ours, or no memory, ends what it belongs to
                        traceback.print_exc(file=sys.stderr)
                        room.begin_again(defect)
        finally:
            for room in self.rooms.values():
                room.fail_all(Refusal(503, "this server has stopped speaking", code="stopped"))
            if not self._closing:
                self.on_failure()

    def _do_work(self) -> None:
        """All work that was handed over; waits for some where nobody has anything to say."""
        try:
            self._work.get(block=all(room.resting for room in self.rooms.values()))()
            while True:
                self._work.get(block=False)()
        except Empty:
            return
