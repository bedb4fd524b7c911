"""The line in front of the engine: order, cancelling, limits, failures."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from rockledge.serve.errors import ApiError
from rockledge.serve.line import Line


def counting(upto: int) -> Callable[[Callable[[], bool]], Iterator[int]]:
    return lambda cancelled: iter(range(upto))


async def collect(results: AsyncIterator[int]) -> list[int]:
    return [result async for result in results]


def test_work_is_done_in_the_order_it_came_and_one_at_a_time() -> None:
    inside = 0
    order: list[int] = []

    def job(number: int) -> Callable[[Callable[[], bool]], Iterator[int]]:
        def work(cancelled: Callable[[], bool]) -> Iterator[int]:
            nonlocal inside
            inside += 1
            assert inside == 1
            order.append(number)
            yield number
            inside -= 1

        return work

    async def scenario() -> list[list[int]]:
        line = Line(20)
        tickets = [line.submit(job(i)) for i in range(10)]
        answers = await asyncio.gather(*(collect(ticket.results()) for ticket in tickets))
        line.close()
        return list(answers)

    assert asyncio.run(scenario()) == [[i] for i in range(10)]
    assert order == list(range(10))


def test_a_full_line_refuses_and_a_cancelled_place_is_free_again() -> None:
    gate = threading.Event()

    def blocked(cancelled: Callable[[], bool]) -> Iterator[int]:
        gate.wait(20)
        yield 1

    async def scenario() -> None:
        line = Line(2)
        line.submit(blocked)
        second = line.submit(counting(1))
        with pytest.raises(ApiError) as caught:
            line.submit(counting(1))
        assert caught.value.status == 503
        second.cancel()
        third = line.submit(counting(3))
        gate.set()
        assert await collect(third.results()) == [0, 1, 2]
        assert await collect(second.results()) == []
        line.close()

    asyncio.run(scenario())


def test_leaving_the_results_stops_the_work() -> None:
    ended = threading.Event()

    def endless(cancelled: Callable[[], bool]) -> Iterator[int]:
        try:
            while not cancelled():
                yield 0
        finally:
            ended.set()

    async def scenario() -> None:
        line = Line(1)
        results = line.submit(endless).results()
        assert await results.__anext__() == 0
        await results.aclose()  # type: ignore[attr-defined]
        assert await asyncio.to_thread(ended.wait, 20)
        line.close()

    asyncio.run(scenario())


def test_a_failure_reaches_the_one_who_waits_and_the_line_goes_on() -> None:
    def failing(cancelled: Callable[[], bool]) -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    async def scenario() -> None:
        line = Line(4)
        first, second = line.submit(failing), line.submit(counting(2))
        with pytest.raises(ValueError, match="broken"):
            await collect(first.results())
        assert await collect(second.results()) == [0, 1]
        line.close()

    asyncio.run(scenario())
