"""The event loop's side of the engine: what it sends, to whom outputs go, and how it ends."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from rockledge.runtime.exchange import AskStats, Cancel, Drain, Ended, Failed, Stats, Stop, Submit
from rockledge.runtime.piece import Piece
from rockledge.runtime.request import EngineStats, Output, Request
from rockledge.serve import front as front_module
from rockledge.serve.errors import ApiError
from rockledge.serve.front import Call, Front
from rockledge.serve.residency import room as room_module
from rockledge.serve.residency.room import Room

REQUEST = Request("", (1, 2, 3))


def run(scenario: Callable[[Front, list[Any]], Awaitable[None]], most_calls: int = 4) -> None:
    """Runs the scenario with a front and the list of what it sends."""

    async def inside() -> None:
        front, sent = Front(Room(most_calls)), []  # type: ignore[var-annotated]
        front.connect(sent.append)
        front.start()
        assert isinstance(sent.pop(), AskStats)
        await scenario(front, sent)

    asyncio.run(inside())


def output(request: str, text: str = "", last: bool = False) -> Output:
    return Output(request, piece=Piece(text, (), None, None, None), last=last)


async def texts(call: Call) -> list[tuple[int, str]]:
    return [(place, found.piece.text) async for place, found in call.outputs() if found.piece is not None]


def test_outputs_go_to_the_call_that_asked_by_the_place_of_the_request() -> None:
    async def scenario(front: Front, sent: list[Any]) -> None:
        first, second = front.open([REQUEST, REQUEST]), front.open([REQUEST])
        names = [message.request.id for message in sent if isinstance(message, Submit)]
        assert len(set(names)) == 3
        front.deliver(output(names[2], "x", last=True))
        front.deliver(output(names[1], "b"))
        front.deliver(output("nobody's", "?"))
        front.deliver(output(names[0], "a", last=True))
        front.deliver(output(names[1], "c", last=True))
        assert await texts(first) == [(1, "b"), (0, "a"), (1, "c")]
        assert await texts(second) == [(0, "x")]
        assert len(front) == 0
        assert not [message for message in sent if isinstance(message, Cancel)]

    run(scenario)


def test_leaving_cancels_what_has_not_ended() -> None:
    async def scenario(front: Front, sent: list[Any]) -> None:
        call = front.open([REQUEST, REQUEST])
        names = [message.request.id for message in sent]
        front.deliver(output(names[0], "a", last=True))
        outputs = call.outputs()
        assert (await outputs.__anext__())[0] == 0
        await outputs.aclose()  # type: ignore[attr-defined]
        call.close()
        assert sent[2:] == [Cancel(names[1])]
        front.deliver(output(names[1], "late", last=True))
        await asyncio.sleep(0)

    run(scenario)


def test_a_full_front_refuses() -> None:
    async def scenario(front: Front, sent: list[Any]) -> None:
        front.open([REQUEST])
        with pytest.raises(ApiError, match="1 requests are already running or waiting") as caught:
            front.open([REQUEST])
        assert (caught.value.status, caught.value.code) == (503, "server_busy")

    run(scenario, most_calls=1)


def test_a_call_alone_may_be_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room_module, "MOST_TOKENS", 2)

    async def scenario(front: Front, sent: list[Any]) -> None:
        call = front.open([REQUEST])
        with pytest.raises(ApiError, match="prompts of 3 tokens are already"):
            front.open([REQUEST])
        call.close()
        front.open([REQUEST])

    run(scenario)


def test_prompts_are_counted_whatever_their_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room_module, "MOST_PROMPTS", 5)

    async def scenario(front: Front, sent: list[Any]) -> None:
        call = front.open([REQUEST] * 6)  # alone
        with pytest.raises(ApiError, match="6 prompts are already running or waiting"):
            front.open([REQUEST])
        call.close()
        front.open([REQUEST] * 4)
        front.open([REQUEST])

    run(scenario)


@pytest.mark.parametrize("message, found", [(Failed("it broke"), "it broke"), (Ended(), "has ended")])
def test_an_engine_that_ends_by_itself_ends_all_calls_and_refuses_more(message: Any, found: str) -> None:
    async def scenario(front: Front, sent: list[Any]) -> None:
        call = front.open([REQUEST])
        front.deliver(message)
        with pytest.raises(ApiError, match=found) as caught:
            await texts(call)
        assert caught.value.status == 503
        assert front.failure is not None
        with pytest.raises(ApiError, match=found):
            front.open([REQUEST])
        assert Stop() in sent

    run(scenario)


def test_an_end_that_was_asked_for_is_no_failure() -> None:
    async def scenario(front: Front, sent: list[Any]) -> None:
        call = front.open([REQUEST])
        front.drain(3.0)
        assert sent[-1] == Drain(3.0)
        front.deliver(Ended())
        with pytest.raises(ApiError, match="shutting down"):
            await texts(call)
        assert front.failure is None
        with pytest.raises(ApiError, match="shutting down"):
            front.open([REQUEST])

    run(scenario)


def test_an_interruption_ends_open_calls_alone() -> None:
    async def scenario(front: Front, sent: list[Any]) -> None:
        call = front.open([REQUEST])
        front.interrupt(ApiError("not now", status=503))
        with pytest.raises(ApiError, match="not now"):
            await texts(call)
        assert isinstance(sent[-1], Cancel)
        front.open([REQUEST])

    run(scenario)


def test_stats_are_those_of_the_last_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_module, "STATS_SECONDS", 0.05)

    async def scenario(front: Front, sent: list[Any]) -> None:
        assert await front.fresh_stats() == EngineStats()  # nobody answers
        waiting = asyncio.ensure_future(front.fresh_stats())
        await asyncio.sleep(0)
        front.deliver(Stats(sent[-1].tag, EngineStats(steps=7)))
        assert (await waiting).steps == 7
        front.deliver(Stats(sent[-1].tag, EngineStats(steps=7)))
        await asyncio.sleep(0.1)
        waiting = asyncio.ensure_future(front.refresh())
        await asyncio.sleep(0)
        front.deliver(Stats(sent[-1].tag, EngineStats(steps=8)))
        await waiting
        assert front.stats.steps == 8
        asked = len(sent)
        await front.refresh()  # that is not long ago
        assert len(sent) == asked
        await asyncio.sleep(0.1)
        await asyncio.wait_for(front.refresh(), 1)  # nobody answers
        assert front.stats.steps == 8

    run(scenario)
