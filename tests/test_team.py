"""A team of threads that is forgotten while it works."""

from __future__ import annotations

import threading

from qwen3tts_np_kernels.threads_jit import Team


def test_a_thread_may_be_the_last_to_know_its_team():
    """Its finalizer then runs in that thread, which cannot wait for itself."""
    team = Team(2)
    team.run(lambda me: None)
    crew = team._crew
    assert crew is not None
    threads = list(crew._threads)
    team.run(lambda me: crew.stop() if me.index == 1 else None)
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(10)
        assert not thread.is_alive()
