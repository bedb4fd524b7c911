"""Which models are loaded, and when: by requests, by time, by memory, and through failures."""

import asyncio
import threading
import time
from datetime import datetime, timezone

import pytest
from tests.serve.residency.shelf import ABC, Shelf, called, run

from rockledge.errors import ArtifactError
from rockledge.serve.errors import ApiError
from rockledge.serve.front import Front
from rockledge.serve.integrity import Integrity
from rockledge.serve.limits import Limits
from rockledge.serve.residency.models import Models
from rockledge.serve.residency.room import Room
from rockledge.serve.residency.running import Offer, Running


def test_a_model_is_loaded_by_its_first_request_and_once() -> None:
    async def scenario(shelf: Shelf) -> None:
        assert shelf.names == []
        first = await asyncio.gather(*(shelf.models.acquire(shelf.model["b"]) for _ in range(20)))
        assert len(set(map(id, first))) == 1
        assert shelf.events == ["+b"]
        for running in first:
            shelf.models.release(running)
        await shelf.use("b")
        assert shelf.events == ["+b"]

    run(scenario, ABC)


def test_the_least_recently_used_makes_room() -> None:
    async def scenario(shelf: Shelf) -> None:
        for name in ("a", "b", "a", "c", "a", "b"):
            await shelf.use(name)
        assert shelf.events == ["+a", "+b", "-b", "+c", "-c", "+b"]

    shelf = run(scenario, ABC, memory=2)
    assert shelf.most == 2


def test_no_more_is_unloaded_than_has_to_be() -> None:
    async def scenario(shelf: Shelf) -> None:
        for name in ("small", "large", "new"):
            await shelf.use(name)
        assert shelf.names == ["small", "new"]

    run(scenario, {"small": 1, "large": 5, "new": 4}, memory=7)


def test_a_load_may_take_what_is_left_and_counts_for_what_it_takes() -> None:
    async def scenario(shelf: Shelf) -> None:
        for name in ("a", "b", "c"):
            await shelf.use(name)
        assert shelf.granted == [7, 6, 5]  # what is spare, and no more: all three fit
        assert [resident.bytes for resident in shelf.models.resident()] == [3, 2, 1]

    run(scenario, {"a": 3, "b": 2, "c": 1}, memory=10)


def test_models_that_do_not_all_fit_may_take_all_that_is_left() -> None:
    async def scenario(shelf: Shelf) -> None:
        for name in ("a", "b", "c"):
            await shelf.use(name)
        assert shelf.granted == [7, 4, 4]

    run(scenario, {"a": 3, "b": 3, "c": 3}, memory=7)


@pytest.mark.parametrize("default, asked, after", [(60, None, 60), (-1, 30, 30), (60, 0, 0), (0, 90, 90)])
def test_a_model_stays_for_its_time_after_the_last_request(
    default: float, asked: float | None, after: float
) -> None:
    async def scenario(shelf: Shelf) -> None:
        running = await shelf.models.acquire(shelf.model["a"], asked)
        shelf.now += 1000  # at work it never goes
        shelf.models.unload_expired()
        await shelf.rest()
        assert shelf.names == ["a"]
        shelf.models.release(running)
        if after:
            shelf.now += after - 1
            shelf.models.unload_expired()
            await shelf.rest()
            [resident] = shelf.models.resident()
            assert resident.expires_at is not None
            left = (resident.expires_at - datetime.now(timezone.utc)).total_seconds()
            assert left == pytest.approx(1, abs=0.5)
            shelf.now += 1
            shelf.models.unload_expired()
        await shelf.rest()
        assert shelf.events == ["+a", "-a"]

    run(scenario, ABC, keep_alive_s=default)


@pytest.mark.parametrize("asked", [-1, 1e30, float("inf")])
def test_for_ever_is_for_ever(asked: float) -> None:
    async def scenario(shelf: Shelf) -> None:
        await shelf.use("a", asked)
        shelf.now += 1e12
        shelf.models.unload_expired()
        await shelf.rest()
        assert [resident.expires_at for resident in shelf.models.resident()] == [None]

    run(scenario, ABC, keep_alive_s=5)


@pytest.mark.parametrize("said", [1e12, 1e30, float("inf")])
def test_for_ever_is_for_ever_where_the_server_says_so(said: float) -> None:
    """Of a model that is loaded before any request; dates end in the year 9999."""
    model, room = called("a"), Room(1)
    running = Running(model, Front(room), Integrity())
    models = Models([Offer(model, lambda _: running)], [running], room=room, keep_alive_s=said)
    assert [resident.expires_at for resident in models.resident()] == [None]


def test_time_unloads_by_itself() -> None:
    async def scenario(shelf: Shelf) -> None:
        shelf.models._clock = time.monotonic
        shelf.models.release(await shelf.models.acquire(shelf.model["a"]))
        assert shelf.names == ["a"]
        await asyncio.sleep(0.2)
        await shelf.rest()
        assert shelf.names == []

    run(scenario, ABC, keep_alive_s=0.1)


def test_a_model_can_be_unloaded_by_name() -> None:
    async def scenario(shelf: Shelf) -> None:
        await shelf.use("a")
        await shelf.models.unload(shelf.model["a"])
        assert (shelf.events, shelf.names) == (["+a", "-a"], [])
        await shelf.models.unload(shelf.model["a"])
        running = await shelf.models.acquire(shelf.model["b"])
        await shelf.models.unload(shelf.model["b"])
        assert shelf.names == ["b"]
        shelf.models.release(running)
        await shelf.rest()
        assert shelf.names == []

    run(scenario, ABC)


def test_a_load_that_fails_is_said_and_tried_again_by_the_next_request() -> None:
    async def scenario(shelf: Shelf) -> None:
        await shelf.use("a")
        shelf.failures["b"] = ArtifactError("b is gone; fetch it again")
        asking = [shelf.models.acquire(shelf.model["b"]) for _ in range(3)]
        found = await asyncio.gather(*asking, return_exceptions=True)
        for error in found:
            assert isinstance(error, ApiError)
            assert (error.status, error.code, error.message) == (
                503,
                "model_load_failed",
                "b is gone; fetch it again",
            )
        assert len(shelf.granted) == 2  # all three shared one attempt
        assert shelf.models.trouble is None
        await shelf.use("a")
        shelf.failures["b"] = RuntimeError("no traceback for clients")
        with pytest.raises(ApiError, match="the server's log says why"):
            await shelf.use("b")
        shelf.failures.clear()
        await shelf.use("b")
        assert shelf.names == ["a", "b"]

    run(scenario, ABC)


def test_readiness_is_that_of_the_first_model() -> None:
    async def scenario(shelf: Shelf) -> None:
        assert shelf.models.trouble is None  # it would be loaded
        shelf.failures["a"] = ArtifactError("a is damaged")
        with pytest.raises(ApiError):
            await shelf.use("a")
        assert str(shelf.models.trouble) == "a is damaged"
        shelf.failures.clear()
        await shelf.use("a")
        assert shelf.models.trouble is None

    run(scenario, ABC)


def test_of_several_models_a_broken_one_is_loaded_again() -> None:
    async def scenario(shelf: Shelf) -> None:
        await shelf.use("a")
        user = await shelf.models.acquire(shelf.model["b"])
        user.front.fail(ApiError("it broke", status=503, code="engine_failed"))
        with pytest.raises(ApiError, match="it broke"):
            await shelf.models.acquire(shelf.model["b"])
        shelf.models.release(user)
        await shelf.use("b")
        assert shelf.events == ["+a", "+b", "-b", "+b"]
        assert shelf.models.lost is None

    run(scenario, ABC)


def test_a_single_model_that_broke_stays_for_the_supervisor_to_see() -> None:
    async def scenario(shelf: Shelf) -> None:
        running = await shelf.models.acquire(shelf.model["a"])
        running.front.fail(ApiError("it broke", status=503, code="engine_failed"))
        shelf.models.release(running)
        with pytest.raises(ApiError, match="it broke"):
            await shelf.use("a")
        assert str(shelf.models.lost) == "it broke"
        assert shelf.events == ["+a"]

    run(scenario, {"a": 1})


def test_the_end_refuses_who_waits_and_closes_what_a_load_brings() -> None:
    async def scenario(shelf: Shelf) -> None:
        await shelf.use("b")
        shelf.gates["a"] = threading.Event()
        waits = asyncio.create_task(shelf.models.acquire(shelf.model["a"]))
        await asyncio.sleep(0.01)
        shelf.models.drain(1.0)
        with pytest.raises(ApiError, match="shutting down"):
            await waits
        with pytest.raises(ApiError, match="shutting down"):
            await shelf.models.acquire(shelf.model["b"])
        assert shelf.made["b"].front.draining.is_set()

    shelf = run(scenario, ABC, limits=Limits(grace_s=5))
    shelf.gates["a"].set()
    shelf.models.close()
    shelf.models.close()
    assert sorted(shelf.events) == ["+a", "+b", "-a", "-b"]


def test_a_load_without_an_end_does_not_keep_the_server_from_ending() -> None:
    async def scenario(shelf: Shelf) -> None:
        shelf.gates["a"] = threading.Event()
        waits = asyncio.create_task(shelf.models.acquire(shelf.model["a"]))
        await asyncio.sleep(0.01)
        shelf.models.drain(0.1)
        await asyncio.wait({waits})
        assert waits.exception() is not None

    shelf = run(scenario, ABC, limits=Limits(grace_s=1.0))
    begun = time.monotonic()
    shelf.models.close()
    shelf.models.close()  # whatever ends the command
    assert time.monotonic() - begun < 1.9
    shelf.gates["a"].set()
