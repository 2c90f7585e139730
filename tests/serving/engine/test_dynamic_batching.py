"""Dynamic batching: order, fairness, refusal, and what a failing or vanishing request costs the others."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecom_rag.serving.engine.batching import Batcher, Ran
from ecom_rag.serving.problems import Problem


class Stage:
    """A thread that doubles numbers, and remembers its batches; ``gate`` holds it."""

    def __init__(self) -> None:
        self.batches: list[tuple[Any, list[int]]] = []
        self.gate = threading.Event()
        self.gate.set()

    def run(self, key: Any, units: list[int]) -> Sequence[int]:
        self.gate.wait(10)
        self.batches.append((key, units))
        if 13 in units:
            raise ValueError("13 is unlucky")
        return [2 * unit for unit in units]


def play(script: Callable[[Stage, Batcher], Coroutine[Any, Any, Any]], **settings: Any) -> Any:
    async def main() -> Any:
        stage = Stage()
        with ThreadPoolExecutor(1) as executor:
            return await asyncio.wait_for(script(stage, Batcher("double", stage.run, executor, **settings)), 20)

    return asyncio.run(main())


async def waiting(batcher: Batcher, *requests: tuple[Sequence[int], Any]) -> list[asyncio.Task[list[int]]]:
    """Requests that stand in the queue behind one that runs."""
    tasks = []
    for units, key in requests:
        tasks.append(asyncio.create_task(batcher.submit(units, key=key)))
        await asyncio.sleep(0.01)
    return tasks


@given(st.lists(st.lists(st.integers(20, 99), max_size=9), max_size=8), st.integers(1, 12))
def test_everyone_gets_the_answers_of_their_own_units(requests, budget):
    async def script(stage, batcher):
        return await asyncio.gather(*(batcher.submit(units, costs=[1 + x % 3 for x in units]) for units in requests))

    assert play(script, budget=budget) == [[2 * unit for unit in units] for units in requests]


def test_what_gathers_while_a_batch_runs_is_the_next_one():
    async def script(stage, batcher):
        stage.gate.clear()
        tasks = await waiting(batcher, ([1], None), ([2], None), ([3, 4], None))
        stage.gate.set()
        await asyncio.gather(*tasks)
        return stage.batches

    assert play(script, budget=10) == [(None, [1]), (None, [2, 3, 4])]


def test_a_small_request_does_not_wait_for_a_large_one():
    async def script(stage, batcher):
        stage.gate.clear()
        tasks = await waiting(batcher, ([1], None), (list(range(20, 40)), None), ([5], None), ([6, 7], None))
        stage.gate.set()
        await asyncio.gather(*tasks)
        return [units for _, units in stage.batches]

    batches = play(script, budget=4)
    assert batches[1:3] == [[20, 21, 5, 6], [22, 23, 24, 7]]


def test_a_unit_larger_than_the_budget_runs_by_itself():
    async def script(stage, batcher):
        return await batcher.submit([1, 2, 3], costs=[5, 1, 500]), stage.batches

    assert play(script, budget=4) == ([2, 4, 6], [(None, [1]), (None, [2]), (None, [3])])


def test_keys_are_never_mixed():
    async def script(stage, batcher):
        stage.gate.clear()
        tasks = await waiting(batcher, ([1], "a"), ([2], "b"), ([3], "a"), ([4], "b"))
        stage.gate.set()
        await asyncio.gather(*tasks)
        return stage.batches

    assert play(script, budget=10) == [("a", [1]), ("b", [2, 4]), ("a", [3])]


def test_a_client_that_has_gone_is_not_computed():
    async def script(stage, batcher):
        stage.gate.clear()
        first, gone, last = await waiting(batcher, ([1], None), ([2, 3], None), ([4], None))
        gone.cancel()
        stage.gate.set()
        assert await first == [2]
        assert await last == [8]
        assert batcher.waiting == 0
        return [units for _, units in stage.batches]

    assert play(script, budget=10) == [[1], [4]]


def test_a_client_that_goes_while_its_batch_runs_hurts_nobody():
    async def script(stage, batcher):
        stage.gate.clear()
        [gone] = await waiting(batcher, (list(range(20, 30)), None))
        [other] = await waiting(batcher, ([1], None))
        gone.cancel()
        stage.gate.set()
        assert await other == [2]
        await batcher.drained()
        return sum(len(units) for _, units in stage.batches)

    assert play(script, budget=4) == 5  # four of the ten, and the other's one


def test_only_the_request_at_fault_fails():
    async def script(stage, batcher):
        stage.gate.clear()
        tasks = await waiting(batcher, ([1], None), ([2], None), ([13, 14], None), ([4], None))
        stage.gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, second, bad, last = play(script, budget=10)
    assert (first, second, last) == ([2], [4], [8])
    assert isinstance(bad, ValueError)


def test_what_would_wait_too_long_is_refused_and_what_runs_is_not():
    async def script(stage, batcher):
        await batcher.submit([1] * 8)
        stage.gate.clear()
        tasks = await waiting(batcher, ([1], None), ([2] * 1000, None))
        batcher._rate = 100.0
        with pytest.raises(Problem) as refused:
            await batcher.submit([3] * 1001)
        tasks += await waiting(batcher, ([4], None))  # it is served in the next round: the large one takes turns
        stage.gate.set()
        await tasks[-1]
        assert not tasks[1].done()
        await asyncio.gather(*tasks)
        assert await batcher.submit([5]) == [10]  # and takes requests again at once
        return refused.value

    problem = play(script, budget=8, queue_seconds=4.0)
    assert problem.status == 429
    assert problem.headers == {"Retry-After": "10"}


def test_a_request_larger_than_the_queue_is_served_when_nothing_waits():
    async def script(stage, batcher):
        await batcher.submit([1] * 8)
        batcher._rate = 1.0
        return len(await batcher.submit([2] * 100))

    assert play(script, budget=8, queue_seconds=1.0) == 100


def test_one_who_watches_sees_each_batch():
    seen: list[Ran] = []

    async def script(stage, batcher):
        await batcher.submit([1, 2, 3], costs=[2, 2, 2])

    play(script, budget=4, watch=seen.append)
    assert [(one.batcher, one.units, one.cost) for one in seen] == [("double", 2, 4), ("double", 1, 2)]
    assert all(one.seconds >= 0 and one.waited >= 0 for one in seen)
