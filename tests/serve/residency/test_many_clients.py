"""Many clients of several models over HTTP, with less memory than all models take."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from tests.serve.residency.shelf import called
from tests.serve.scripted_engine import ScriptedEngine

from rockledge.runtime.exchange import Stop
from rockledge.runtime.service import Service
from rockledge.serve.app import create_app
from rockledge.serve.front import Front
from rockledge.serve.http.server import Server, bind
from rockledge.serve.integrity import Integrity
from rockledge.serve.limits import Limits
from rockledge.serve.residency.models import Models
from rockledge.serve.residency.room import Room
from rockledge.serve.residency.running import Offer, Running
from rockledge.serve.served_model import ServedModel

HELLO = {"messages": [{"role": "user", "content": "Hi"}]}


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
