"""`/v1/chat/completions` over a scripted engine, as a plain HTTP client sees it."""

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from rockledge.runtime.sampling import Sampling

HELLO = [{"role": "user", "content": "Hi"}]


def events(response: httpx.Response) -> list[Any]:
    """The JSON objects of a stream that must end as the API says."""
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in response.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_an_answer_has_text_reason_and_usage(http: httpx.Client, engine: Any) -> None:
    answer = http.post("/v1/chat/completions", json={"messages": HELLO}).json()
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "scripted"
    [choice] = answer["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"] == "Hello, world"
    assert choice["finish_reason"] == "stop"
    assert choice["logprobs"] is None
    prompt = len("user: Hi\nassistant: ")
    assert answer["usage"] == {"prompt_tokens": prompt, "completion_tokens": 12, "total_tokens": prompt + 12}
    assert engine.requests[0]["prompt"] == list(b"user: Hi\nassistant: ")


def test_a_stream_carries_the_same_answer(http: httpx.Client) -> None:
    chunks = events(http.post("/v1/chat/completions", json={"messages": HELLO, "stream": True}))
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == "Hello, world"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert all("usage" not in chunk for chunk in chunks)


def test_a_stream_ends_with_usage_when_asked(http: httpx.Client) -> None:
    body = {"messages": HELLO, "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 5}
    *chunks, last = events(http.post("/v1/chat/completions", json=body))
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 5
    assert all(chunk["usage"] is None for chunk in chunks)
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_come_token_by_token(http: httpx.Client, stream: bool) -> None:
    body = {"messages": HELLO, "logprobs": True, "top_logprobs": 2, "max_tokens": 2, "stream": stream}
    response = http.post("/v1/chat/completions", json=body)
    choices = (
        [chunk["choices"][0] for chunk in events(response)] if stream else [response.json()["choices"][0]]
    )
    content = [entry for choice in choices if choice["logprobs"] for entry in choice["logprobs"]["content"]]
    assert [entry["token"] for entry in content] == ["H", "e"]
    assert [entry["bytes"] for entry in content] == [[72], [101]]
    assert [entry["logprob"] for entry in content] == [0.0, -1.0]
    assert [[top["token"] for top in entry["top_logprobs"]] for entry in content] == [["H", "~"], ["e", "~"]]


def test_logprobs_without_alternatives(http: httpx.Client) -> None:
    body = {"messages": HELLO, "logprobs": True, "max_tokens": 1}
    [choice] = http.post("/v1/chat/completions", json=body).json()["choices"]
    assert choice["logprobs"]["content"] == [
        {"token": "H", "logprob": 0.0, "bytes": [72], "top_logprobs": []}
    ]


def test_settings_reach_the_engine(http: httpx.Client, engine: Any) -> None:
    settings = {"temperature": 0.5, "top_p": 0.9, "top_k": 7, "min_p": 0.1, "seed": -1, "stop": ["a", "b"]}
    response = http.post(
        "/v1/chat/completions", json={"messages": HELLO, "max_completion_tokens": 3, **settings}
    )
    assert response.status_code == 200
    asked = engine.requests[0]
    sampling = asked["sampling"]
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.5, 0.9, 7, 0.1)
    assert sampling.seed == 2**64 - 1
    assert asked["stop"] == ("a", "b")
    assert asked["max_tokens"] == 3


def test_a_part_of_the_settings_leaves_the_apis_for_the_rest(http: httpx.Client, engine: Any) -> None:
    http.post("/v1/chat/completions", json={"messages": HELLO, "top_p": 0.5})
    http.post("/v1/chat/completions", json={"messages": HELLO, "temperature": 0})
    http.post("/v1/completions", json={"prompt": "Hi", "top_k": 3})
    found = [request["sampling"] for request in engine.requests]
    assert found == [Sampling(1.0, top_p=0.5), Sampling(), Sampling(1.0, top_k=3)]


def test_without_any_settings_answers_are_drawn_warmly(http: httpx.Client, engine: Any) -> None:
    http.post("/v1/chat/completions", json={"messages": HELLO})
    http.post("/v1/completions", json={"prompt": "Hi", "seed": 4})
    warm = Sampling(temperature=0.7, top_p=0.95, min_p=0.05)
    assert [request["sampling"] for request in engine.requests] == [warm, replace(warm, seed=4)]
    asked = engine.requests[0]
    assert asked["max_tokens"] == engine.context - len(asked["prompt"])


def test_content_may_come_in_text_parts_and_developer_is_system(http: httpx.Client, engine: Any) -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}],
            "name": "x",
        },
    ]
    assert http.post("/v1/chat/completions", json={"messages": messages}).status_code == 200
    assert bytes(engine.requests[0]["prompt"]) == b"system: Be brief.\nuser: Hi\nassistant: "


@pytest.mark.parametrize(
    "body, param",
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [{"role": "robot", "content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.content.type"),
        ({"messages": HELLO, "max_tokens": 0}, "max_tokens"),
        ({"messages": HELLO, "max_tokens": "many"}, "max_tokens"),
        ({"messages": HELLO, "temperature": 3}, "temperature"),
        ({"messages": HELLO, "top_p": -1}, "top_p"),
        ({"messages": HELLO, "top_logprobs": 2}, "top_logprobs"),
        ({"messages": HELLO, "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"messages": HELLO, "logprobs": 3}, "logprobs"),
        ({"messages": HELLO, "stop": [""]}, "stop"),
        ({"messages": HELLO, "stop": [1]}, "stop"),
        ({"messages": HELLO, "stream": "yes"}, "stream"),
        ({"messages": HELLO, "stream_options": {"include_usage": True}}, "stream_options"),
        ({"messages": HELLO, "stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
        ({"messages": HELLO, "n": 2}, "n"),
        ({"messages": HELLO, "tools": [{"type": "function"}]}, "tools"),
        ({"messages": HELLO, "response_format": {"type": "json_schema"}}, "response_format"),
        ({"messages": HELLO, "echo": True}, "echo"),
        ({"messages": [{"role": "assistant", "content": "Hi"}]}, "messages"),
    ],
)
def test_bad_requests_name_the_field(http: httpx.Client, engine: Any, body: Any, param: str) -> None:
    response = http.post("/v1/chat/completions", json=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert error["message"]
    assert engine.requests == []


def test_a_prompt_that_does_not_fit_is_the_clients_mistake(http: httpx.Client, engine: Any) -> None:
    for stream in (False, True):
        body = {"messages": [{"role": "user", "content": "x" * 100}], "stream": stream}
        response = http.post("/v1/chat/completions", json=body)
        assert response.status_code == 400
        assert response.json()["error"]["code"] == "context_length_exceeded"
        assert "larger --ctx" in response.json()["error"]["message"]
    assert engine.requests == []


def test_a_model_without_a_template_points_to_completions(http: httpx.Client, engine: Any) -> None:
    engine.chat = None
    response = http.post("/v1/chat/completions", json={"messages": HELLO})
    assert response.status_code == 400
    assert "/v1/completions" in response.json()["error"]["message"]


def test_a_failure_before_the_first_token_is_a_500(http: httpx.Client, engine: Any) -> None:
    engine.fail_after = 0
    for stream in (False, True):
        response = http.post("/v1/chat/completions", json={"messages": HELLO, "stream": stream})
        assert response.status_code == 500
        assert response.json()["error"]["type"] == "server_error"
        assert "script" not in response.text


def test_a_failure_in_the_middle_of_a_stream_is_an_error_event(http: httpx.Client, engine: Any) -> None:
    engine.fail_after = 3
    response = http.post("/v1/chat/completions", json={"messages": HELLO, "stream": True})
    *_, last = [line for line in response.text.split("\n\n") if line]
    assert json.loads(last.removeprefix("data: "))["error"]["type"] == "server_error"
