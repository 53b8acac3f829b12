"""The queue between the stages: its bound, its end, its interruption."""

from __future__ import annotations

import threading
import time

import pytest

from pipelines.weighted_queue import QueueClosed, WeightedQueue


def test_first_in_first_out() -> None:
    queue: WeightedQueue[int] = WeightedQueue(10)
    queue.put(1)
    queue.put(2)
    queue.finish()
    assert [queue.get(), queue.get()] == [1, 2]
    with pytest.raises(QueueClosed):
        queue.get()


def test_put_waits_for_room() -> None:
    queue: WeightedQueue[str] = WeightedQueue(10)
    queue.put("first", weight=8)
    second = threading.Thread(target=queue.put, args=("second",), kwargs={"weight": 3})
    second.start()
    second.join(0.1)
    assert second.is_alive()
    assert queue.get() == "first"
    second.join(5)
    assert queue.get() == "second"


def test_one_heavy_item_fits() -> None:
    queue: WeightedQueue[str] = WeightedQueue(10)
    queue.put("heavy", weight=1000)
    assert queue.get() == "heavy"


def test_get_gives_up_in_time() -> None:
    queue: WeightedQueue[int] = WeightedQueue(1)
    started = time.monotonic()
    assert queue.get(timeout=0.05) is None
    assert time.monotonic() - started >= 0.05


@pytest.mark.parametrize("end", ["finish", "abort"])
def test_ending_wakes_who_waits(end: str) -> None:
    queue: WeightedQueue[int] = WeightedQueue(1)
    woken: list[type[BaseException]] = []

    def wait() -> None:
        try:
            queue.get()
        except QueueClosed as exc:
            woken.append(type(exc))

    waiting = threading.Thread(target=wait)
    waiting.start()
    getattr(queue, end)()
    waiting.join(5)
    assert woken == [QueueClosed]


def test_an_aborted_queue_takes_and_gives_nothing() -> None:
    queue: WeightedQueue[int] = WeightedQueue(2)
    queue.put(1)
    queue.abort()
    assert queue.is_aborted
    with pytest.raises(QueueClosed):
        queue.get()
    with pytest.raises(QueueClosed):
        queue.put(2)
