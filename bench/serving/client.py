"""A client of the OpenAI API that costs next to nothing: plain asyncio streams, one parsed event a token.

The client shares a small machine with the server that it measures, so an ordinary HTTP library would be part
of the figures. It reads only what these two servers send: HTTP/1.1, bodies of a stated length or in chunks.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

Prompt = Sequence[int] | str


class RefusedError(Exception):
    """The server answered with an error, or not as HTTP does; the message holds what it said."""


@dataclass
class Answer:
    """A streamed answer as it arrives; times are seconds of `time.perf_counter`."""

    sent: float
    arrivals: list[float] = field(default_factory=list)  # of every event that holds text
    text: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    ended: float = 0.0

    @property
    def ttft(self) -> float:
        """Seconds until the first text, or until the end of an answer without any."""
        return (self.arrivals[0] if self.arrivals else self.ended) - self.sent

    @property
    def read_tokens(self) -> int:
        """Tokens of the prompt that were not found in a cache, as the server says."""
        details = self.usage.get("prompt_tokens_details") or {}
        return int(self.usage["prompt_tokens"] - details.get("cached_tokens", 0))

    @property
    def gaps(self) -> list[float]:
        """Seconds between the events that hold text."""
        return [later - earlier for earlier, later in pairwise(self.arrivals)]


class Connection:
    """One connection, used for one request after another as long as the server leaves it open: llama-server
    does not, and is connected to anew."""

    def __init__(self, url: str, address: str | None = None) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._name = parts.hostname, parts.port, parts.netloc
        self._local = None if address is None else (address, 0)
        self._open = False

    async def connect(self) -> None:
        """Makes the connection, unless it is open."""
        if not self._open:
            self._reader, self._writer = await asyncio.open_connection(
                self._host, self._port, local_addr=self._local, limit=1 << 20
            )
            self._open = True

    def close(self) -> None:
        """Hangs up, in the middle of an answer too."""
        if self._open:
            self._open = False
            self._writer.transport.abort()

    async def request(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """Status and body of an answer that comes at once."""
        status, length = await self._send(method, path, body)
        if length is not None:
            content = await self._reader.readexactly(length)
        else:
            content = b"".join([chunk async for chunk in self._chunks()])
        self._end()
        return status, content

    async def json(self, path: str, body: object) -> Any:
        """The object that a POST is answered with. Raises RefusedError for any status but 200."""
        status, text = await self.request("POST", path, body)
        if status != 200:
            raise RefusedError(f"{path} was answered with {status}: {text[:300].decode(errors='replace')}")
        return json.loads(text)

    async def stream(self, path: str, body: dict[str, object], answer: Answer | None = None) -> Answer:
        """The answer, once it has ended; `answer` grows meanwhile. Raises RefusedError."""
        answer = answer or Answer(0.0)
        answer.sent = time.perf_counter()
        whole = {**body, "stream": True, "stream_options": {"include_usage": True}}
        status, length = await self._send("POST", path, whole)
        if status != 200 or length is not None:
            text = await self._reader.read(300)
            raise RefusedError(f"{path} was answered with {status}: {text.decode(errors='replace')}")
        rest = b""
        async for chunk in self._chunks():
            now = time.perf_counter()
            *events, rest = (rest + chunk).split(b"\n\n")
            for event in events:
                if event.startswith(b"data: {"):
                    _take(answer, json.loads(event[6:]), now)
        answer.ended = time.perf_counter()
        self._end()
        return answer

    async def _send(self, method: str, path: str, body: object) -> tuple[int, int | None]:
        """Status and length of the answer, None where it comes in chunks."""
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._name}\r\nContent-Type: application/json\r\n"
        message = f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content
        used = self._open
        try:
            answered = await self._head(message)
        except (asyncio.IncompleteReadError, ConnectionError):
            if not used:
                raise
            self.close()  # it had been closed while nothing was asked
            answered = await self._head(message)
        first, *lines = answered.decode("latin-1").lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines if ": " in line)
        status = int(first.split(" ", 2)[1])
        self._last = headers.get("connection") == "close"
        return status, None if "transfer-encoding" in headers else int(headers.get("content-length", "0"))

    async def _head(self, message: bytes) -> bytes:
        await self.connect()
        self._writer.write(message)
        return await self._reader.readuntil(b"\r\n\r\n")

    def _end(self) -> None:
        if self._last:
            self.close()

    async def _chunks(self) -> AsyncIterator[bytes]:
        while True:
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            chunk = await self._reader.readexactly(size + 2)
            if size == 0:
                return
            yield chunk[:-2]


@asynccontextmanager
async def connection(url: str, address: str | None = None) -> AsyncIterator[Connection]:
    """A connection to the server at `url`; `address` is this end's, by which a server tells clients apart."""
    found = Connection(url, address)
    await found.connect()
    try:
        yield found
    finally:
        found.close()


def completion(prompt: Prompt, max_tokens: int) -> dict[str, object]:
    """The body of a greedy completion of exactly `max_tokens`."""
    content = prompt if isinstance(prompt, str) else list(prompt)
    return {"prompt": content, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True}


async def complete(url: str, prompt: Prompt, max_tokens: int, address: str | None = None) -> Answer:
    """A streamed completion over a connection of its own."""
    async with connection(url, address) as one:
        return await one.stream("/v1/completions", completion(prompt, max_tokens))


def _take(answer: Answer, event: dict[str, Any], now: float) -> None:
    if "error" in event:
        raise RefusedError(f"the answer broke off: {event['error']}")
    for choice in event.get("choices", ()):
        text = choice["text"] if "text" in choice else choice["delta"].get("content")
        if text:
            answer.arrivals.append(now)
            answer.text += text
    if event.get("usage"):
        answer.usage = event["usage"]
