"""Real HTTP servers over a scripted engine, reached by messages as the real one is."""

import asyncio
import pickle
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from tests.serve.scripted_engine import BOS, TOKENIZER, VOCAB, PlainTemplate, ScriptedEngine

from rockledge.runtime.engine import Engine
from rockledge.runtime.exchange import Stop
from rockledge.runtime.service import EngineLike, Service
from rockledge.serve.app import create_app
from rockledge.serve.front import Front
from rockledge.serve.http.server import Server, bind
from rockledge.serve.integrity import Integrity
from rockledge.serve.limits import Limits
from rockledge.serve.residency.models import Models
from rockledge.serve.residency.room import Room
from rockledge.serve.residency.running import Offer, Running
from rockledge.serve.safety.checks import Safety
from rockledge.serve.served_model import ServedModel

CONTEXT = 64


def scripted_model(
    context: int = CONTEXT, chat: Any = True, aliases: tuple[str, ...] = (), pools: bool = False, **facts: Any
) -> ServedModel:
    """What the front end knows of a scripted engine; `pools`: that it makes embeddings, and no text."""
    template: Any = PlainTemplate() if chat is True else chat
    named: dict[str, Any] = {"aliases": aliases, "pools": pools, "generates": not pools, **facts}
    return ServedModel("scripted", TOKENIZER, template, context, VOCAB, BOS, **named)


class Serving:
    """A uvicorn server in a thread of this process, over an engine in another. Every message between the two
    is pickled on its way."""

    def __init__(
        self,
        engine: EngineLike,
        *,
        model: ServedModel | None = None,
        limits: Limits | None = None,
        integrity: Integrity | None = None,
        safety: Safety | None = None,
        tls: ssl.SSLContext | None = None,
        strict: bool = False,
        sheets: Any = None,
        governor: Any = None,
        **model_options: Any,
    ) -> None:
        if isinstance(engine, Engine):
            model = ServedModel.of(engine.artifact, engine.name, engine.context, engine.chat)
        bounds = limits or Limits()
        keys = None if safety is None else safety.keys
        room = Room(bounds.parallel + bounds.waiting)
        self.front = Front(room, keys)
        self.service = Service(
            engine, lambda message: self.front.deliver(pickle.loads(pickle.dumps(message)))
        )
        self.front.connect(lambda message: self.service.send(pickle.loads(pickle.dumps(message))))
        served = Running(model or scripted_model(**model_options), self.front, integrity or Integrity())
        if governor is not None:
            served = replace(served, governor=governor)
        # Its engine goes on when it is unloaded, and is the same when it is loaded again.
        offer = Offer(served.model, lambda _: replace(served, integrity=Integrity()))
        self.models = Models([offer], [served], limits=bounds, room=room)
        app = create_app(self.models, limits=bounds, safety=safety, strict=strict, sheets=sheets)
        ready = threading.Event()
        self._socket = bind("127.0.0.1", 0)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._socket.getsockname()[1]}"
        self.server = Server(app, bounds, ready.set, lambda: self.models.drain(bounds.grace_s), tls)
        self.thread = threading.Thread(target=lambda: asyncio.run(self.server.serve([self._socket])))
        self.thread.start()
        assert ready.wait(20)

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)
        self._socket.close()
        self.service.send(Stop())
        assert self.service.join(20)
        assert not self.thread.is_alive()


def _servers() -> Iterator[Callable[..., str]]:
    servers: list[Serving] = []

    def start(engine: Any, **options: Any) -> str:
        servers.append(Serving(engine, **options))
        return servers[-1].url

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def serving() -> Iterator[Callable[..., str]]:
    """Starts servers: `serving(engine, limits=Limits(waiting=2))` gives the base URL; all end after it."""
    yield from _servers()


@pytest.fixture
def new_server() -> type[Serving]:
    """The class of such servers, for tests that end one themselves."""
    return Serving


@pytest.fixture(scope="module")
def start_server() -> Iterator[Callable[..., str]]:
    """As `serving`, for a whole file of tests."""
    yield from _servers()


@pytest.fixture(scope="session")
def shared() -> Iterator[tuple[ScriptedEngine, httpx.Client]]:
    """One scripted engine, its server and a client for all tests: starting a server takes a while."""
    engine = ScriptedEngine()
    server = Serving(engine)
    with httpx.Client(base_url=server.url, timeout=20) as client:
        yield engine, client
    server.close()


@pytest.fixture
def engine(shared: tuple[ScriptedEngine, httpx.Client]) -> ScriptedEngine:
    """The shared engine as it was at first."""
    shared[0].reset()
    return shared[0]


@pytest.fixture
def http(engine: ScriptedEngine, shared: tuple[ScriptedEngine, httpx.Client]) -> httpx.Client:
    """A client of the server over `engine`."""
    return shared[1]
