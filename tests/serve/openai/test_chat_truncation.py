"""`truncation` of `/v1/chat/completions`: what is dropped is said, and the cache still knows the rest."""

import itertools
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tests.serve.openai.test_chat import events
from tests.serve.scripted_engine import ScriptedEngine

CONTEXT = 400


@pytest.fixture(scope="module")
def client(start_server: Callable[..., str], shared: Any) -> Any:
    with httpx.Client(base_url=start_server(shared[0], context=CONTEXT), timeout=20) as client:
        yield client


def conversation(turns: int) -> list[dict[str, str]]:
    found = [{"role": "system", "content": "Be kind."}]
    for number in range(turns):
        found += [
            {"role": "user", "content": f"question {number:03}"},
            {"role": "assistant", "content": "Hello, world"},
        ]
    return [*found, {"role": "user", "content": f"question {turns:03}"}]


def ask(client: httpx.Client, turns: int, **body: Any) -> httpx.Response:
    body = {"truncation": "auto", "max_tokens": 20, "messages": conversation(turns), **body}
    return client.post("/v1/chat/completions", json=body)


def test_what_was_dropped_is_said(client: httpx.Client, engine: ScriptedEngine) -> None:
    whole = ask(client, 1)
    assert "x-rockledge-dropped-messages" not in whole.headers
    assert "dropped_messages" not in whole.json()["usage"]
    cut = ask(client, 20)
    dropped = cut.json()["usage"]["dropped_messages"]
    assert cut.headers["x-rockledge-dropped-messages"] == str(dropped)
    prompt = bytes(engine.requests[-1].prompt).decode()
    assert prompt.startswith(f"system: Be kind.\nuser: question {dropped // 2:03}\n")
    assert prompt.endswith("user: question 020\nassistant: ")
    assert len(prompt) <= CONTEXT - 20
    stream = ask(client, 20, stream=True, stream_options={"include_usage": True})
    assert stream.headers["x-rockledge-dropped-messages"] == str(dropped)
    assert events(stream)[-1]["usage"]["dropped_messages"] == dropped


def test_nothing_is_dropped_unless_the_request_says_so(client: httpx.Client, engine: ScriptedEngine) -> None:
    for changes in ({"truncation": None}, {"truncation": "disabled"}):
        assert ask(client, 20, **changes).json()["error"]["code"] == "context_length_exceeded"
    assert engine.requests == []
    refused = ask(client, 1, truncation="oldest")
    assert refused.json()["error"]["message"] == "'truncation' must be one of auto, disabled"


def test_most_turns_find_the_prompt_of_the_turn_before(client: httpx.Client, engine: ScriptedEngine) -> None:
    for turns in range(60):
        assert ask(client, turns).status_code == 200
    prompts = [bytes(request.prompt) for request in engine.requests]
    read = [
        next((n for n, (old, new) in enumerate(zip(before, after, strict=False)) if old != new), len(before))
        for before, after in itertools.pairwise(prompts)
    ]
    read = [len(after) - found for after, found in zip(prompts[1:], read, strict=True)]
    # An answer and a question with their markup are 43 tokens; a block is half of what there is.
    assert sorted(read)[len(read) // 2] == 43
    assert sum(count > 43 for count in read) <= 60 * 43 / (CONTEXT / 2)
    assert sum(read) < 2 * 60 * 43


def test_a_last_turn_that_does_not_fit_is_refused(client: httpx.Client, engine: ScriptedEngine) -> None:
    messages = [*conversation(10), {"role": "user", "content": "x" * CONTEXT}]
    response = ask(client, 0, messages=messages)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"
    # One that leaves less for the answer than was asked for is answered as far as that goes.
    messages[-1]["content"] = "x" * (CONTEXT - 60)
    answer = ask(client, 0, messages=messages).json()
    assert answer["usage"]["dropped_messages"] == 21
