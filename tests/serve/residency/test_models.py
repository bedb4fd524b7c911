"""Which models are loaded, and when: by requests, by time, by memory, and through failures."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import httpx
import pytest
from tests.serve.conftest import scripted_model
from tests.serve.scripted_engine import ScriptedEngine

from rockledge.errors import ArtifactError
from rockledge.runtime.exchange import Stop
from rockledge.runtime.service import Service
from rockledge.serve.app import create_app
from rockledge.serve.errors import ApiError
from rockledge.serve.front import Front
from rockledge.serve.http.server import Server, bind
from rockledge.serve.integrity import Integrity
from rockledge.serve.limits import Limits
from rockledge.serve.residency.models import Models
from rockledge.serve.residency.room import Room
from rockledge.serve.residency.running import Offer, Running
from rockledge.serve.served_model import ServedModel

HELLO = {"messages": [{"role": "user", "content": "Hi"}]}


def called(name: str, **facts: Any) -> ServedModel:
    return replace(scripted_model(**facts), name=name)


class Shelf:
    """Models without engines: says what was loaded and unloaded, in order ("+a", "-a")."""

    def __init__(self, sizes: dict[str, int], memory: int | None = None, **options: Any) -> None:
        self.now = 0.0
        self.events: list[str] = []
        self.failures: dict[str, Exception] = {}
        self.gates: dict[str, threading.Event] = {}
        self.granted: list[int | None] = []
        self.most = self.loaded = 0
        self.made: dict[str, Running] = {}
        self.room = Room(100)
        self.sizes = sizes
        self.model = {name: called(name) for name in sizes}
        offers = [Offer(self.model[name], self._loader(name), size) for name, size in sizes.items()]
        self.models = Models(offers, room=self.room, memory=memory, clock=lambda: self.now, **options)

    def _loader(self, name: str) -> Callable[[int | None], Running]:
        def load(memory: int | None) -> Running:
            self.granted.append(memory)
            if name in self.gates:
                assert self.gates[name].wait(10)
            if name in self.failures:
                raise self.failures[name]
            self.events.append(f"+{name}")
            self.loaded += self.sizes[name]
            self.most = max(self.most, self.loaded)
            running = Running(self.model[name], Front(self.room), Integrity(), self.sizes[name], close)
            self.made[name] = running
            return running

        def close() -> None:
            self.events.append(f"-{name}")
            self.loaded -= self.sizes[name]

        return load

    async def use(self, name: str, keep_alive_s: float | None = None) -> None:
        """A request that is over at once."""
        self.now += 1
        self.models.release(await self.models.acquire(self.model[name], keep_alive_s))
        await self.rest()

    async def rest(self) -> None:
        """Until nothing is loaded or unloaded any more."""
        end = time.monotonic() + 10
        while any(place.state in ("loading", "unloading") for place in self.models.places):
            assert time.monotonic() < end
            await asyncio.sleep(0.001)

    @property
    def names(self) -> list[str]:
        return [resident.model.name for resident in self.models.resident()]


def run(scenario: Callable[[Shelf], Awaitable[None]], sizes: dict[str, int], **options: Any) -> Shelf:
    """Runs the scenario in an event loop, over models of these sizes."""

    async def inside() -> Shelf:
        shelf = Shelf(sizes, **options)
        shelf.models.start()
        await asyncio.wait_for(scenario(shelf), 20)
        shelf.models.stop()
        return shelf

    return asyncio.run(inside())


ABC = {"a": 1, "b": 1, "c": 1}


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


class Crowd:
    """A server of scripted engines, each of which answers with its own name; `memory` engines fit at once."""

    def __init__(self, names: str, memory: int, **options: Any) -> None:
        self.lock, self.loaded, self.most, self.loads = threading.Lock(), 0, 0, 0
        self.room = Room(200)
        offers = [self._offer(called(name, aliases=(f"{name}-too",))) for name in names]
        self.models = Models(offers, limits=Limits(), room=self.room, memory=memory, **options)
        self._socket = bind("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        ready = threading.Event()
        app = create_app(self.models, limits=Limits())
        self._server = Server(app, Limits(), ready.set, lambda: self.models.drain(1.0))
        self._thread = threading.Thread(target=lambda: asyncio.run(self._server.serve([self._socket])))
        self._thread.start()
        assert ready.wait(20)

    def _offer(self, model: ServedModel) -> Offer:
        def load(_: int | None) -> Running:
            engine = ScriptedEngine()
            engine.script, engine.pace = f"I am {model.name}", 0.0005
            with self.lock:
                self.loaded, self.loads = self.loaded + 1, self.loads + 1
                self.most = max(self.most, self.loaded)
            front = Front(self.room)
            service = Service(engine, front.deliver)
            front.connect(service.send)

            def close() -> None:
                service.send(Stop())
                assert service.join(10)
                with self.lock:
                    self.loaded -= 1

            return Running(model, front, Integrity(), 1, close)

        return Offer(model, load, 1)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()
        self._socket.close()
        self.models.close()
        assert self.loaded == 0


@pytest.fixture
def crowd() -> Iterator[Callable[..., Crowd]]:
    made: list[Crowd] = []

    def start(names: str, memory: int, **options: Any) -> Crowd:
        made.append(Crowd(names, memory, **options))
        return made[-1]

    yield start
    for one in made:
        one.close()


def test_fifty_clients_of_three_models_with_room_for_two_all_get_the_right_answer(
    crowd: Callable[..., Crowd],
) -> None:
    served = crowd("abc", 2)
    limits = httpx.Limits(max_connections=60)
    with httpx.Client(base_url=served.url, timeout=60, limits=limits) as http, ThreadPoolExecutor(50) as pool:

        def ask(number: int) -> None:
            name = "abc"[(number * 7 + number // 5) % 3]
            body = {"model": name if number % 4 else f"{name}-too", "stream": number % 2 == 0, **HELLO}
            if number % 11 == 0:
                body["timeout"] = 30
            answer = http.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200, answer.text
            if body["stream"]:
                events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
                text = "".join(
                    httpx.Response(200, text=event).json()["choices"][0]["delta"].get("content") or ""
                    for event in events
                )
            else:
                text = answer.json()["choices"][0]["message"]["content"]
            assert text == f"I am {name}"

        list(pool.map(ask, range(150)))
        assert served.most == 2
        assert served.loads >= 3
        health = http.get("/health").json()
        assert health["requests"] == 0
        assert len(served.room) == 0


def test_health_metrics_and_the_list_know_all_models(crowd: Callable[..., Crowd]) -> None:
    served = crowd("ab", 1, keep_alive_s=300)
    with httpx.Client(base_url=served.url, timeout=20) as http:
        assert [model["id"] for model in http.get("/v1/models").json()["data"]] == [
            "a",
            "a-too",
            "b",
            "b-too",
        ]
        assert http.get("/health/ready").status_code == 200
        assert "rockledge_model_loaded" in http.get("/metrics").text
        answer = http.post("/v1/chat/completions", json=HELLO)
        assert (answer.json()["model"], answer.json()["choices"][0]["message"]["content"]) == ("a", "I am a")
        health = http.get("/health").json()
        assert (health["model"], health["state"], health["status"]) == ("a", "loaded", "ok")
        assert {name: one["state"] for name, one in health["models"].items()} == {
            "a": "loaded",
            "b": "unloaded",
        }
        assert http.post("/v1/chat/completions", json={"model": "b", **HELLO}).json()["model"] == "b"
        metrics = http.get("/metrics").text
        assert 'rockledge_model_loaded{model="a"} 0.0' in metrics
        assert 'rockledge_model_loaded{model="b"} 1.0' in metrics
        assert 'rockledge_model_loads_total{model="a"} 1.0' in metrics
        assert 'rockledge_answer_tokens_total{model="b"} 6.0' in metrics
        assert 'rockledge_requests{model="a"} 0.0' in metrics


def test_a_client_that_leaves_while_its_model_waits_is_forgotten(crowd: Callable[..., Crowd]) -> None:
    served = crowd("ab", 1)
    slow = {"model": "a", "stream": True, **HELLO}
    with httpx.Client(base_url=served.url, timeout=20) as http:
        http.post("/v1/chat/completions", json=slow)
        running = served.models.places[0].engine
        assert running is not None
        with http.stream("POST", "/v1/chat/completions", json=slow):
            pass
        place = served.models.places[0]
        place.users += 1  # one at work
        with pytest.raises(httpx.ReadTimeout):
            http.post("/v1/chat/completions", json={"model": "b", **HELLO}, timeout=0.3)
        end = time.monotonic() + 10
        while served.models.places[1].waiting:
            assert time.monotonic() < end
            time.sleep(0.01)
        place.users -= 1
        assert http.post("/v1/chat/completions", json={"model": "a", **HELLO}).status_code == 200
        assert served.loads == 1


def test_a_client_that_leaves_while_a_model_is_only_loaded_is_forgotten(crowd: Callable[..., Crowd]) -> None:
    served = crowd("ab", 1)
    with httpx.Client(base_url=served.url, timeout=20) as http:
        http.post("/api/generate", json={"model": "a"})
        first, other = served.models.places
        first.users += 1  # one at work
        with pytest.raises(httpx.ReadTimeout):
            http.post("/api/generate", json={"model": "b"}, timeout=0.3)
        end = time.monotonic() + 10
        while other.waiting:
            assert time.monotonic() < end
            time.sleep(0.01)
        first.users -= 1
        assert http.post("/api/generate", json={"model": "a"}).status_code == 200
        assert served.loads == 1
