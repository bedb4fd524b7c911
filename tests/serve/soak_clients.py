"""Clients of the soak: they ask, leave in the middle, send what is wrong, and compare every whole answer."""

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
from tests.serve.soak_requests import Asked, malformed

LOST_SECONDS = 120  # an answer that has not come by then is lost


@dataclass
class Counts:
    """What has happened so far."""

    of: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def essence(answer: Any) -> Any:
    """What of an answer is the same every time: not its name and time, nor what was found in the cache."""
    usage = {name: answer["usage"][name] for name in ("prompt_tokens", "completion_tokens")}
    return {"choices": answer["choices"], "usage": usage}


def joined(events: list[Any]) -> Any:
    """Text and end of every choice of a streamed answer, and its usage."""
    texts: dict[int, str] = {}
    ends: dict[int, str] = {}
    for choice in (choice for event in events for choice in event["choices"]):
        text = choice["text"] if "text" in choice else choice["delta"].get("content")
        texts[choice["index"]] = texts.get(choice["index"], "") + (text or "")
        if choice["finish_reason"]:
            ends[choice["index"]] = choice["finish_reason"]
    return texts, ends, essence({"choices": [], **events[-1]})["usage"]


def as_joined(answer: Any) -> Any:
    """The same of a whole answer."""
    texts, ends = {}, {}
    for choice in answer["choices"]:
        texts[choice["index"]] = choice["text"] if "text" in choice else choice["message"]["content"]
        ends[choice["index"]] = choice["finish_reason"]
    return texts, ends, answer["usage"]


async def alone(url: str, asked: list[Asked]) -> list[Any]:
    """The answers to all requests, one after another."""
    async with httpx.AsyncClient(base_url=url, timeout=LOST_SECONDS) as http:
        found = []
        for one in asked:
            response = await http.post(one.path, json=one.body)
            assert response.status_code == 200, (one, response.text)
            found.append(essence(response.json()))
        return found


class Client:
    """One of the clients: it picks something to do at random, again and again until `until`."""

    def __init__(self, url: str, asked: list[Asked], expected: list[Any], chance: random.Random) -> None:
        self._url, self._asked, self._expected, self._chance = url, asked, expected, chance
        self.counts = Counts()
        self._deeds = (
            (4, self.ask),
            (4, self.stream),
            (2, self.leave_stream),
            (1, self.leave_head),
            (1, self.leave_body),
            (1, self.leave_waiting),
            (1, self.send_malformed),
        )

    async def run(self, until: float) -> Counts:
        """Everything that this client did."""
        weights, deeds = zip(*self._deeds, strict=True)
        async with httpx.AsyncClient(base_url=self._url, timeout=LOST_SECONDS) as self._http:
            while time.monotonic() < until:
                (deed,) = self._chance.choices(deeds, weights)
                self.counts.of[deed.__name__] += 1
                try:
                    await asyncio.wait_for(deed(), LOST_SECONDS)
                except (httpx.HTTPError, asyncio.TimeoutError) as error:
                    self.counts.wrong.append(f"{deed.__name__}: {type(error).__name__}: {error}")
                await asyncio.sleep(self._chance.choice((0.0, 0.0, 0.01, 0.1)))
        return self.counts

    def _pick(self) -> tuple[Asked, Any]:
        """A request, in front of others or behind them, and what it is answered with in any case."""
        number = self._chance.randrange(len(self._asked))
        asked = self._asked[number]
        body = {**asked.body, "priority": self._chance.choice((0, 0, 0, -1, 1))}
        return replace(asked, body=body), self._expected[number]

    def _check(self, asked: Asked, found: Any, expected: Any) -> None:
        self.counts.of["answers"] += 1
        if found != expected:
            self.counts.wrong.append(f"{asked} was answered with {found}, alone with {expected}")

    async def ask(self) -> None:
        asked, expected = self._pick()
        response = await self._http.post(asked.path, json=asked.body)
        if response.status_code == 503:
            self.counts.of["busy"] += 1
        elif response.status_code != 200:
            self.counts.wrong.append(f"{asked} was answered with {response.status_code} {response.text}")
        else:
            self._check(asked, essence(response.json()), expected)

    async def stream(self) -> None:
        asked, expected = self._pick()
        body = {**asked.body, "stream": True, "stream_options": {"include_usage": True}}
        async with self._http.stream("POST", asked.path, json=body) as response:
            lines = [line async for line in response.aiter_lines() if line.startswith("data: ")]
        if response.status_code == 503:
            self.counts.of["busy"] += 1
            return
        if not lines or lines.pop() != "data: [DONE]":
            self.counts.wrong.append(f"{asked} broke off after {lines[-1:]}")
            return
        self._check(asked, joined([json.loads(line[6:]) for line in lines]), as_joined(expected))

    async def leave_stream(self) -> None:
        asked, _ = self._pick()
        async with self._http.stream("POST", asked.path, json={**asked.body, "stream": True}) as response:
            left = self._chance.randrange(6)
            async for _line in response.aiter_lines():
                left -= 1
                if left < 0:
                    break

    async def leave_head(self) -> None:
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n\r\n"
        await self._send_part(head[: self._chance.randrange(len(head))])

    async def leave_body(self) -> None:
        asked, _ = self._pick()
        content = json.dumps(asked.body).encode()
        head = f"POST {asked.path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
        await self._send_part(head.encode() + content[: self._chance.randrange(len(content))])

    async def leave_waiting(self) -> None:
        asked, _ = self._pick()
        content = json.dumps(asked.body).encode()
        head = f"POST {asked.path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
        await self._send_part(head.encode() + content)

    async def send_malformed(self) -> None:
        path, content = malformed(self._chance)
        try:
            response = await self._http.post(path, content=content)
        except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
            self.counts.of["hung up on"] += 1  # a body that was refused before all of it was sent
            return
        if response.status_code not in (400, 413, 503):
            self.counts.wrong.append(f"{content[:80]!r} was answered with {response.status_code}")

    async def _send_part(self, content: bytes) -> None:
        host, port = self._url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(content)
        await asyncio.sleep(self._chance.choice((0.0, 0.02, 0.2)))
        writer.transport.abort()
