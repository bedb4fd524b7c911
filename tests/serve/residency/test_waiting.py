"""Requests that wait until their model can be loaded: turns, bounds, and those that leave."""

import asyncio
import threading

import pytest
from tests.serve.residency.shelf import ABC, Shelf, run

from rockledge.serve.errors import ApiError
from rockledge.serve.limits import Limits


def test_one_at_work_is_waited_for_and_takes_no_more_meanwhile() -> None:
    async def scenario(shelf: Shelf) -> None:
        first = await shelf.models.acquire(shelf.model["a"])
        waits = asyncio.create_task(shelf.models.acquire(shelf.model["b"]))
        await asyncio.sleep(0.01)
        late = asyncio.create_task(shelf.models.acquire(shelf.model["a"]))
        await asyncio.sleep(0.01)
        assert not waits.done()
        assert not late.done()
        shelf.models.release(first)
        shelf.models.release(await waits)
        shelf.models.release(await late)
        assert shelf.events == ["+a", "-a", "+b", "-b", "+a"]

    run(scenario, ABC, memory=1)


def test_an_idle_one_goes_before_one_at_work() -> None:
    async def scenario(shelf: Shelf) -> None:
        working = await shelf.models.acquire(shelf.model["a"])
        await shelf.use("b")
        await shelf.use("c")
        assert shelf.names == ["a", "c"]
        shelf.models.release(working)

    run(scenario, ABC, memory=2)


def test_when_nobody_waits_for_its_place_any_more_a_model_takes_requests_again() -> None:
    async def scenario(shelf: Shelf) -> None:
        working = await shelf.models.acquire(shelf.model["a"])
        waits = asyncio.create_task(shelf.models.acquire(shelf.model["b"]))
        await asyncio.sleep(0.01)
        late = asyncio.create_task(shelf.models.acquire(shelf.model["a"]))
        await asyncio.sleep(0.01)
        assert not late.done()
        waits.cancel()
        assert await asyncio.wait_for(late, 5) is working
        assert shelf.events == ["+a"]

    run(scenario, ABC, memory=1)


def test_models_get_their_turns_in_the_order_of_their_first_requests() -> None:
    async def scenario(shelf: Shelf) -> None:
        order: list[str] = []

        async def ask(name: str) -> None:
            running = await shelf.models.acquire(shelf.model[name])
            order.append(name)
            await asyncio.sleep(0.002)
            shelf.models.release(running)

        first = await shelf.models.acquire(shelf.model["a"])
        asking = []
        for name in ("b", "c", "b", "a", "c", "b"):
            asking.append(asyncio.create_task(ask(name)))
            await asyncio.sleep(0.001)
        shelf.models.release(first)
        await asyncio.gather(*asking)
        assert order == ["b", "b", "b", "c", "c", "a"]

    run(scenario, ABC, memory=1)


def test_models_that_are_always_at_work_make_room_too() -> None:
    """Each of two has several requests, so none is ever idle unless it takes no further ones."""

    async def scenario(shelf: Shelf) -> None:
        over = asyncio.Event()

        async def ask_again_and_again(name: str) -> None:
            while not over.is_set():
                running = await shelf.models.acquire(shelf.model[name])
                await asyncio.sleep(0.002)
                shelf.now += 1
                shelf.models.release(running)

        asking = []
        for name in "ababab":
            asking.append(asyncio.create_task(ask_again_and_again(name)))
            await asyncio.sleep(0.0007)
        try:
            shelf.models.release(await asyncio.wait_for(shelf.models.acquire(shelf.model["c"]), 5))
        finally:
            over.set()
            await asyncio.gather(*asking)

    run(scenario, ABC, memory=2)


def test_waiting_has_an_end_in_time_and_others_go_on() -> None:
    async def scenario(shelf: Shelf) -> None:
        first = await shelf.models.acquire(shelf.model["a"])
        with pytest.raises(ApiError, match="the model 'b' is not loaded yet, others use the mem") as caught:
            await shelf.models.acquire(shelf.model["b"])
        assert (caught.value.status, caught.value.headers["Retry-After"]) == (503, "1")
        with pytest.raises(ApiError, match=r"within 0\.01 s, the request's timeout") as caught:
            await shelf.models.acquire(shelf.model["b"], timeout_s=0.01)
        assert (caught.value.status, caught.value.code) == (504, "timeout")
        shelf.models.release(await shelf.models.acquire(shelf.model["a"]))  # nobody waits for its place now
        shelf.models.release(first)
        assert shelf.events == ["+a"]

    run(scenario, ABC, memory=1, limits=Limits(load_wait_s=0.05))


def test_a_load_that_takes_long_is_not_said_to_wait_for_others() -> None:
    async def scenario(shelf: Shelf) -> None:
        shelf.gates["a"] = threading.Event()
        with pytest.raises(ApiError, match="the model 'a' is not loaded yet, it takes long; try again"):
            await shelf.models.acquire(shelf.model["a"])
        shelf.gates["a"].set()
        await shelf.rest()
        shelf.models.release(await shelf.models.acquire(shelf.model["a"]))
        assert shelf.events == ["+a"]

    run(scenario, ABC, memory=1, limits=Limits(load_wait_s=0.05))


def test_waiting_has_an_end_in_number() -> None:
    async def scenario(shelf: Shelf) -> None:
        shelf.room.most_calls = 2
        first = await shelf.models.acquire(shelf.model["a"])
        waits = [asyncio.create_task(shelf.models.acquire(shelf.model["b"])) for _ in range(2)]
        await asyncio.sleep(0.01)
        with pytest.raises(ApiError, match="2 requests are already running or waiting"):
            await shelf.models.acquire(shelf.model["b"])
        shelf.models.release(first)
        for running in await asyncio.gather(*waits):
            shelf.models.release(running)

    run(scenario, ABC, memory=1)


def test_whoever_leaves_while_waiting_leaves_nothing_behind() -> None:
    async def scenario(shelf: Shelf) -> None:
        first = await shelf.models.acquire(shelf.model["a"])
        waits = asyncio.create_task(shelf.models.acquire(shelf.model["b"]))
        await asyncio.sleep(0.01)
        waits.cancel()
        await asyncio.wait({waits})
        again = await shelf.models.acquire(shelf.model["a"])
        # One that is cancelled in the moment in which it gets the engine gives it back.
        lost = asyncio.create_task(shelf.models.acquire(shelf.model["c"]))
        await asyncio.sleep(0.01)
        shelf.models.release(first)
        shelf.models.release(again)
        while not any(place.name == "c" and place.users for place in shelf.models.places):
            await asyncio.sleep(0)
        lost.cancel()
        await asyncio.wait({lost})
        assert [place.users for place in shelf.models.places] == [0, 0, 0]
        assert len(shelf.room) == 0
        await shelf.use("b")

    run(scenario, ABC, memory=1)
