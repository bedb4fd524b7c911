"""API keys over HTTP: who has none, whose limits are used up, and a file that changes meanwhile."""

import hmac
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from rockledge.errors import UsageError
from rockledge.serve.safety import keys as keys_module
from rockledge.serve.safety.checks import Safety
from rockledge.serve.safety.key_file import KeyLimits, add_key, remove_key
from rockledge.serve.safety.keys import Keys
from rockledge.serve.safety.origins import Origins

ASKED = {"prompt": "Hi", "max_tokens": 5}  # three tokens of prompt with the one that begins a text


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Guarded:
    """A server with keys, and a client for each."""

    def __init__(self, serving: Callable[..., str], engine: Any, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        self._serving, self._engine = serving, engine

    def add(self, name: str = "home", **limits: Any) -> str:
        return add_key(self.path, name, KeyLimits(**limits))

    def start(self, **options: Any) -> str:
        self.keys = Keys(self.path, self.clock)
        return self._serving(
            self._engine, safety=Safety(keys=self.keys, origins=Origins.of(["http://a"])), **options
        )


@pytest.fixture
def guarded(serving: Callable[..., str], engine: Any, tmp_path: Path) -> Guarded:
    return Guarded(serving, engine, tmp_path / "keys.json")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def ask(url: str, key: str, **more: Any) -> httpx.Response:
    return httpx.post(f"{url}/v1/completions", json={**ASKED, **more}, headers=bearer(key), timeout=20)


def test_only_a_valid_key_is_answered(
    guarded: Guarded, engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    key = guarded.add()
    url = guarded.start()
    other = key[:-1] + ("A" if key[-1] != "A" else "B")
    with caplog.at_level(logging.DEBUG, "rockledge"), caplog.at_level(logging.DEBUG, "uvicorn"):
        for headers in (
            {},
            {"Authorization": "Bearer"},
            bearer(other),
            bearer("rk-00000000-" + key[12:]),
            bearer(key + "A"),
            bearer(key.upper()),
            {"Authorization": key},
            {"Authorization": f"Basic {key}"},
            {"x-api-key": other},
            {"x-api-key": other, **bearer(key)},
            {b"Authorization": b"Bearer \xff\x80"},
        ):
            for method, path in (("POST", "/v1/completions"), ("GET", "/v1/models"), ("GET", "/metrics")):
                answer = httpx.request(method, url + path, headers=headers, json=ASKED)
                assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
                assert answer.headers["www-authenticate"].startswith("Bearer")
        assert httpx.get(f"{url}//health").status_code == 401
        assert httpx.post(f"{url}/health").status_code == 401
        assert not engine.requests
        assert ask(url, key).status_code == 200
        assert httpx.post(f"{url}/v1/completions", json=ASKED, headers={"x-api-key": key}).status_code == 200
        assert httpx.get(f"{url}/health").status_code == 200
    assert {request.client for request in engine.requests} == {"home"}
    for secret in (key, other, key[12:]):
        assert secret not in caplog.text
        assert secret not in guarded.path.read_text()


def test_a_browser_may_ask_without_a_key_whether_it_may_send_one(guarded: Guarded) -> None:
    guarded.add()
    url = guarded.start()
    asked = {"Origin": "http://a", "Access-Control-Request-Method": "POST"}
    assert httpx.options(f"{url}/v1/completions", headers=asked).status_code == 204
    refused = httpx.get(f"{url}/v1/models", headers={"Origin": "http://a"})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "http://a")


def test_the_openai_client_knows_what_happened(guarded: Guarded) -> None:
    key = guarded.add(requests_per_minute=1)
    url = guarded.start()
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
        client.completions.create(model="scripted", prompt="Hi")
        with pytest.raises(openai.RateLimitError, match="1 requests a minute"):
            client.completions.create(model="scripted", prompt="Hi")
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()


def test_requests_of_a_minute(guarded: Guarded) -> None:
    key = guarded.add(requests_per_minute=2)
    other = guarded.add("other")
    url = guarded.start()
    first = ask(url, key)
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    guarded.clock.now += 30
    assert ask(url, key).headers["x-ratelimit-remaining-requests"] == "0"
    refused = ask(url, key)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert 29 <= int(refused.headers["retry-after"]) <= 32
    assert refused.headers["x-ratelimit-reset-requests"].endswith("s")
    assert ask(url, other).status_code == 200
    assert httpx.get(f"{url}/v1/models", headers=bearer(key)).status_code == 200
    guarded.clock.now += int(refused.headers["retry-after"])
    assert ask(url, key).status_code == 200
    assert ask(url, key).status_code == 429


def test_tokens_of_a_day_are_those_of_prompts_and_answers(guarded: Guarded, engine: Any) -> None:
    key = guarded.add(tokens_per_day=20)
    url = guarded.start()
    answer = ask(url, key, n=2)  # the prompt counts once
    assert answer.json()["usage"]["total_tokens"] == 13
    assert answer.headers["x-ratelimit-remaining-tokens"] == "7"
    assert ask(url, key, prompt="too long for the rest").status_code == 429
    assert httpx.post(
        f"{url}/v1/completions", json={**ASKED, "stream": True}, headers=bearer(key)
    ).text.endswith("[DONE]\n\n")  # begins within the limit, and ends beyond it
    refused = ask(url, key)
    assert refused.status_code == 429
    assert 86_000 <= int(refused.headers["retry-after"]) <= 89_000
    guarded.clock.now += int(refused.headers["retry-after"])
    assert ask(url, key).status_code == 200
    assert len(engine.requests) == 4


def test_requests_at_a_time(guarded: Guarded, engine: Any) -> None:
    key = guarded.add(concurrent=1)
    other = guarded.add("other")
    url = guarded.start()
    engine.pace = 0.05
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(ask, url, key)
        assert engine.started.wait(10)
        refused = ask(url, key)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert ask(url, other).status_code == 200
        assert running.result().status_code == 200
    assert ask(url, key).status_code == 200
    # What fails or is left gives its place back too.
    assert ask(url, key, prompt=1).status_code == 400
    with (
        httpx.Client() as http,
        http.stream(
            "POST", f"{url}/v1/completions", json={**ASKED, "stream": True}, headers=bearer(key)
        ) as stream,
    ):
        next(stream.iter_raw())
    end = time.monotonic() + 10
    while ask(url, key).status_code == 429:
        assert time.monotonic() < end


def test_the_longest_answer_and_the_order_are_the_keys(guarded: Guarded, engine: Any) -> None:
    short, high = guarded.add("short", answer_tokens=2), guarded.add("high", priority=2)
    url = guarded.start()
    answer = ask(url, short, priority=-1000).json()
    assert answer["choices"][0]["text"] == "He"
    assert answer["choices"][0]["finish_reason"] == "length"
    ask(url, short, priority=1 << 31)
    ask(url, high, priority=1 << 31)
    ask(url, high, priority=-(1 << 31))
    first, later, high_later, highest = (request.priority for request in engine.requests)
    assert later < first == 0 < high_later < highest  # nobody goes before others by asking for it


def test_keys_come_and_go_while_the_server_runs(guarded: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    old = guarded.add("old")
    url = guarded.start()
    new = guarded.add("new")
    remove_key(guarded.path, "old")
    guarded.clock.now += 2
    assert [ask(url, key).status_code for key in (old, new)] == [401, 200]
    guarded.path.write_text("{")
    guarded.clock.now += 2
    assert ask(url, new).status_code == 200
    assert "those from before stay" in caplog.text
    guarded.path.unlink()
    guarded.clock.now += 2
    assert ask(url, new).status_code == 200
    newest = guarded.add("newest", concurrent=3)
    guarded.keys.reload()
    assert [ask(url, key).status_code for key in (new, newest)] == [401, 200]


def test_guesses_take_the_steps_of_a_valid_key(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a guess has a known id, or looks like a key at all, changes nothing of what is computed."""
    key = guarded.add()
    guarded.start()
    steps: list[tuple[int, int]] = []

    class Watched:
        @staticmethod
        def compare_digest(a: bytes, b: bytes) -> bool:
            steps.append((len(a), len(b)))
            return hmac.compare_digest(a, b)

    monkeypatch.setattr(keys_module, "hmac", Watched)
    guesses = (key, key[:-4] + "xxxx", "rk-ffffffff-" + key[12:], "", "x" * len(key), "ü" * 40)
    found = [guarded.keys.find(guess) is not None for guess in guesses]
    assert found == [True] + [False] * 5
    assert steps == [(32, 32)] * 6


def test_a_key_that_goes_while_its_body_is_read_counts_no_more(guarded: Guarded, engine: Any) -> None:
    key = guarded.add()
    guarded.add("other")
    url = guarded.start()
    sent = threading.Event()

    def body() -> Any:
        yield b'{"prompt": "Hi"'
        sent.wait(10)
        yield b"}"

    headers = {"Content-Type": "application/json", **bearer(key)}
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(httpx.post, f"{url}/v1/completions", content=body(), headers=headers)
        time.sleep(0.2)
        remove_key(guarded.path, "home")
        guarded.keys.reload()
        sent.set()
        assert asked.result().status_code == 401
    assert not engine.requests


def test_a_file_without_keys_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    with pytest.raises(UsageError, match="cannot be read"):
        Keys(path)
    path.write_text('{"keys": []}')
    with pytest.raises(UsageError, match="has no key"):
        Keys(path)
