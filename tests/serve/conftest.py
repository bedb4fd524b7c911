"""A scripted engine with the interface of the real one, and real HTTP servers over it.

Its tokenizer is one token a byte (256 is the beginning of text, 257 its end), so every expected answer of a
test can be read off the script.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import tokenizers

from rockledge.errors import UsageError
from rockledge.model.tokenizer import Tokenizer
from rockledge.runtime.offload.status import NpuStatus
from rockledge.runtime.piece import Piece, Score
from rockledge.runtime.sampling import Sampling, TokenLogprob
from rockledge.serve.app import create_app
from rockledge.serve.server import Server, bind

BOS, EOS, VOCAB = 256, 257, 258


def byte_tokenizer() -> Tokenizer:
    """A real tokenizer whose token i is byte i."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {byte: chr(byte) for byte in printable} | {b: chr(0x100 + i) for i, b in enumerate(others)}
    rules = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab={character: byte for byte, character in characters.items()}, merges=[])
    )
    rules.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    rules.decoder = tokenizers.decoders.ByteLevel()
    rules.add_special_tokens(["<s>", "</s>"])
    rules.post_processor = tokenizers.processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", BOS)])
    config = {"bos_token": "<s>"}
    files = {"tokenizer.json": rules.to_str(), "tokenizer_config.json": json.dumps(config)}
    return Tokenizer.from_files({name: text.encode() for name, text in files.items()})


TOKENIZER = byte_tokenizer()


class PlainTemplate:
    """`role: content` lines; refuses a conversation that starts with the assistant."""

    def render(self, messages: Sequence[dict[str, str]], add_generation_prompt: bool = True) -> str:
        if messages[0]["role"] == "assistant":
            raise UsageError("the chat template refuses these messages: the assistant cannot begin")
        lines = [f"{m['role']}: {m['content']}\n" for m in messages]
        return "".join(lines) + "assistant: " * add_generation_prompt


class ScriptedEngine:
    """Answers every request with `script` and then the end of text; records what it was asked.

    Token i has log probability -i (-0.5 as a prompt token); the alternatives are the token itself and "~".
    `pace` seconds pass before each token; `started` and `finished` tell what is going on inside.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Back to the first script, with nothing recorded."""
        self.script = "Hello, world"
        self.name = "scripted"
        self.context = 64
        self.config = SimpleNamespace(vocab=VOCAB, bos=BOS, eos=(EOS,))
        self.tokenizer = TOKENIZER
        self.chat: PlainTemplate | None = PlainTemplate()
        self.pace = 0.0
        self.fail_after: int | None = None
        self.npu = NpuStatus("off", "it was not asked for")
        self.requests: list[dict[str, Any]] = []
        self.active = 0
        self.most_active = 0
        self.produced = 0
        self.started = threading.Event()
        self.finished = threading.Event()

    def generate(
        self,
        prompt: Sequence[int],
        *,
        max_tokens: int,
        sampling: Sampling,
        stop: Sequence[str] = (),
        logprobs: int | None = None,
        ignore_eos: bool = False,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[Piece]:
        self.requests.append(
            {"prompt": list(prompt), "max_tokens": max_tokens, "sampling": sampling, "stop": tuple(stop)}
        )
        self.active += 1
        self.most_active = max(self.active, self.most_active)
        self.started.set()
        try:
            for i, token in enumerate(self.script.encode()[:max_tokens]):
                time.sleep(self.pace)
                if cancelled():
                    return
                if i == self.fail_after:
                    raise RuntimeError("the script says so")
                self.produced += 1
                top = (TokenLogprob(token, -float(i)), TokenLogprob(ord("~"), -9.0))[: logprobs or 0]
                yield Piece(
                    text=chr(token),
                    ids=(token,),
                    logprobs=None if logprobs is None else (-float(i),),
                    top=None if logprobs is None else (top,),
                    finish=None,
                )
            finish = "stop" if max_tokens >= len(self.script) else "length"
            scored = None if logprobs is None else ()
            yield Piece(text="", ids=(), logprobs=scored, top=scored, finish=finish)
        finally:
            self.active -= 1
            self.finished.set()

    def score(self, ids: Sequence[int], top: int = 0) -> list[Score]:
        return [Score(t, -0.5, (TokenLogprob(t, -0.5), TokenLogprob(126, -9.0))[:top]) for t in ids[1:]]


class Serving:
    """A uvicorn server in a thread of this process."""

    def __init__(self, engine: Any, **options: Any) -> None:
        ready = threading.Event()
        self._socket = bind("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server = Server(create_app(engine, **options), ready.set)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})
        self._thread.start()
        assert ready.wait(20)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        self._socket.close()
        assert not self._thread.is_alive()


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
    """Starts servers: `serving(engine, queue_limit=2)` gives the base URL; all end with the test."""
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
