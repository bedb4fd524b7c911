"""`/v1/chat/completions` over a scripted engine, as a plain HTTP client sees it."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from tests.serve.conftest import CONTEXT

from rockledge.runtime.sampling import Sampling
from rockledge.serve.limits import Limits

HELLO = [{"role": "user", "content": "Hi"}]
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


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
    assert answer["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": 12,
        "total_tokens": prompt + 12,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert list(engine.requests[0].prompt) == list(b"user: Hi\nassistant: ")


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
    sampling = asked.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.5, 0.9, 7, 0.1)
    assert sampling.seed == 2**64 - 1
    assert asked.stop == ("a", "b")
    assert asked.max_tokens == 3


def test_a_part_of_the_settings_leaves_the_apis_for_the_rest(http: httpx.Client, engine: Any) -> None:
    http.post("/v1/chat/completions", json={"messages": HELLO, "top_p": 0.5})
    http.post("/v1/chat/completions", json={"messages": HELLO, "temperature": 0})
    http.post("/v1/completions", json={"prompt": "Hi", "top_k": 3})
    found = [request.sampling for request in engine.requests]
    assert found == [Sampling(1.0, top_p=0.5), Sampling(), Sampling(1.0, top_k=3)]


def test_without_any_settings_answers_are_drawn_warmly(http: httpx.Client, engine: Any) -> None:
    http.post("/v1/chat/completions", json={"messages": HELLO})
    http.post("/v1/completions", json={"prompt": "Hi", "seed": 4})
    warm = Sampling(temperature=0.7, top_p=0.95, min_p=0.05)
    assert [request.sampling for request in engine.requests] == [warm, replace(warm, seed=4)]
    asked = engine.requests[0]
    assert asked.max_tokens == CONTEXT - len(asked.prompt)


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
    assert bytes(engine.requests[0].prompt) == b"system: Be brief.\nuser: Hi\nassistant: "


@pytest.mark.parametrize(
    "body, param",
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [{"role": "robot", "content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
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
        ({"messages": HELLO, "n": 0}, "n"),
        ({"messages": HELLO, "n": 2, "best_of": 1}, "best_of"),
        ({"messages": HELLO, "stream": True, "best_of": 2}, "best_of"),
        ({"messages": HELLO, "n": True}, "n"),
        ({"messages": HELLO, "presence_penalty": 2.5}, "presence_penalty"),
        ({"messages": HELLO, "frequency_penalty": -3}, "frequency_penalty"),
        ({"messages": HELLO, "repetition_penalty": 0}, "repetition_penalty"),
        ({"messages": HELLO, "repeat_penalty": "1"}, "repeat_penalty"),
        ({"messages": HELLO, "logit_bias": {"258": 1}}, "logit_bias"),
        ({"messages": HELLO, "logit_bias": {"+1": 1}}, "logit_bias"),
        ({"messages": HELLO, "logit_bias": {"1": 101}}, "logit_bias"),
        ({"messages": HELLO, "logit_bias": {"1": 1, "01": 2}}, "logit_bias"),
        ({"messages": HELLO, "logit_bias": [1]}, "logit_bias"),
        ({"messages": HELLO, "stop_token_ids": [258]}, "stop_token_ids"),
        ({"messages": HELLO, "stop_token_ids": [True]}, "stop_token_ids"),
        ({"messages": HELLO, "min_tokens": 5, "max_tokens": 4}, "min_tokens"),
        ({"messages": HELLO, "priority": "high"}, "priority"),
        ({"messages": HELLO, "timeout": -1}, "timeout"),
        ({"messages": HELLO, "chat_template_kwargs": [1]}, "chat_template_kwargs"),
        ({"messages": HELLO, "max_tokens": 8.5}, "max_tokens"),
        ({"messages": HELLO, "max_tokens": -2}, "max_tokens"),
        ({"messages": HELLO, "tools": [{"type": "function"}]}, "tools[0].function"),
        ({"messages": HELLO, "tools": [{"type": "retrieval"}]}, "tools[0].type"),
        ({"messages": HELLO, "response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"messages": HELLO, "response_format": {"type": "xml"}}, "response_format.type"),
        ({"messages": HELLO, "guided_regex": "(?=a)b"}, "guided_regex"),
        ({"messages": HELLO, "guided_json": {"not": {}}}, "guided_json"),
        ({"messages": HELLO, "guided_json": {}, "grammar": 'root ::= "a"'}, "guided_json"),
        ({"messages": HELLO, "structured_outputs": {"json": {}, "regex": "a"}}, "structured_outputs"),
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
    framing = len("user: \nassistant: ")
    exact, least = (
        (100, f"{100 + framing}"),
        (4000, f"at least {(4000 + framing) // 4}"),
    )  # "</s>" has 4 bytes
    for length, found in (exact, least, (CONTEXT + 1 - framing, f"{CONTEXT + 1}")):
        for stream in (False, True):
            body = {"messages": [{"role": "user", "content": "x" * length}], "stream": stream}
            response = http.post("/v1/chat/completions", json=body)
            assert response.status_code == 400
            assert response.json()["error"]["code"] == "context_length_exceeded"
            assert response.json()["error"]["message"] == (
                "This model's maximum context length is 64 tokens. However, your messages resulted in "
                f"{found} tokens. Please reduce the length of the messages."
            )
    assert engine.requests == []


def test_a_prompt_as_long_as_the_context_has_no_room_for_an_answer(http: httpx.Client) -> None:
    content = "x" * (CONTEXT - len("user: \nassistant: "))
    response = http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": content}]})
    assert "you requested 65 tokens (64 in the messages, 1 in the completion)" in response.text


def test_a_model_without_a_template_points_to_completions(serving: Callable[..., str], engine: Any) -> None:
    response = httpx.post(f"{serving(engine, chat=None)}/v1/chat/completions", json={"messages": HELLO})
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


def test_choices_are_drawn_side_by_side_with_seeds_of_their_own(http: httpx.Client, engine: Any) -> None:
    body = {"messages": HELLO, "n": 3, "seed": 2**64 - 1, "max_tokens": 4}
    answer = http.post("/v1/chat/completions", json=body).json()
    assert [(c["index"], c["message"]["content"]) for c in answer["choices"]] == [
        (0, "Hell"),
        (1, "Hell"),
        (2, "Hell"),
    ]
    assert [request.sampling.seed for request in engine.requests] == [2**64 - 1, 0, 1]
    assert engine.most_active == 3
    prompt = len("user: Hi\nassistant: ")
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (prompt, 12)


def test_a_stream_of_several_choices_ends_each(http: httpx.Client) -> None:
    body = {"messages": HELLO, "n": 2, "stream": True}
    chunks = [chunk["choices"][0] for chunk in events(http.post("/v1/chat/completions", json=body))]
    for index in (0, 1):
        mine = [chunk for chunk in chunks if chunk["index"] == index]
        assert mine[0]["delta"]["role"] == "assistant"
        assert "".join(chunk["delta"].get("content", "") for chunk in mine) == "Hello, world"
        assert mine[-1]["finish_reason"] == "stop"


def test_the_best_candidates_are_those_with_the_most_probable_tokens(http: httpx.Client, engine: Any) -> None:
    body = {"messages": HELLO, "n": 2, "best_of": 4, "seed": 10, "logprobs": True, "max_tokens": 2}
    answer = http.post("/v1/chat/completions", json=body).json()
    sums = [sum(entry["logprob"] for entry in c["logprobs"]["content"]) for c in answer["choices"]]
    assert [c["index"] for c in answer["choices"]] == [0, 1]
    assert sums == [2 * 13 - 1, 2 * 12 - 1]  # the script's log probabilities rise with the seed
    assert answer["usage"]["completion_tokens"] == 8
    plain = http.post("/v1/chat/completions", json={**body, "logprobs": False}).json()
    assert all(c["logprobs"] is None for c in plain["choices"])


def test_penalties_biases_and_stops_reach_the_engine(http: httpx.Client, engine: Any) -> None:
    settings = {
        "repetition_penalty": 1.1,
        "presence_penalty": -0.5,
        "frequency_penalty": 0.25,
        "logit_bias": {"7": -100, "3": 2.5, "4": 0},
        "min_tokens": 2.0,
        "stop_token_ids": [9, 5, 9],
    }
    body = {"messages": HELLO, "priority": -3, "timeout": 20, "max_tokens": 5, **settings}
    assert http.post("/v1/chat/completions", json=body).status_code == 200
    [request] = engine.requests
    assert request.sampling == Sampling(
        temperature=0.7,
        top_p=0.95,
        min_p=0.05,
        repetition_penalty=1.1,
        presence_penalty=-0.5,
        frequency_penalty=0.25,
        logit_bias=((3, 2.5), (7, -100.0)),
        min_tokens=2,
        stop_ids=(5, 9),
    )
    assert (request.priority, request.deadline_s, request.client) == (3, 20.0, "127.0.0.1")


TAKEN: list[dict[str, Any]] = [
    {"max_tokens": -1},
    {"cache_prompt": True},
    {"keep_alive": "5m"},
    {"repeat_penalty": 1},
    {"max_tokens": 8.0},
    {"top_logprobs": 0},
    {"min_tokens": 0},
    {"logit_bias": {}},
    {"best_of": 1},
    {"n": 1},
    {"frequency_penalty": 0, "presence_penalty": 0, "repetition_penalty": 1},
    {"stream": True, "stream_options": {"include_usage": False, "continuous_usage_stats": True}},
]


@pytest.mark.parametrize("extra", TAKEN, ids=lambda extra: next(iter(extra)))
def test_what_clients_send_is_taken(http: httpx.Client, extra: dict[str, Any]) -> None:
    assert http.post("/v1/chat/completions", json={"messages": HELLO, **extra}).status_code == 200


def test_no_limit_means_the_context(http: httpx.Client, engine: Any) -> None:
    http.post("/v1/chat/completions", json={"messages": HELLO, "max_tokens": -1})
    http.post("/v1/completions", json={"prompt": "Hi", "max_tokens": -1})
    assert [request.max_tokens for request in engine.requests] == [CONTEXT - 20, CONTEXT - 3]


def test_what_messages_carry_is_taken_and_thoughts_reach_the_template(
    http: httpx.Client, engine: Any
) -> None:
    part = {"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}
    messages = [
        {"role": "user", "content": [part], "id": "m1", "cache_control": {}},
        {"role": "assistant", "content": "Yo", "reasoning_content": "(hm)", "name": "x", "refusal": None},
        {"role": "user", "content": "?"},
    ]
    body = {"messages": messages, "chat_template_kwargs": {"mark": "!"}}
    assert http.post("/v1/chat/completions", json=body).status_code == 200
    assert bytes(engine.requests[0].prompt) == b"user: Hi\nassistant: (hm)Yo\nuser: ?\n!assistant: "


def test_cached_tokens_are_in_the_usage(http: httpx.Client, engine: Any) -> None:
    engine.cached = 17
    answer = http.post("/v1/chat/completions", json={"messages": HELLO, "n": 2}).json()
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 17}
    body = {"messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}
    *_, last = events(http.post("/v1/chat/completions", json=body))
    assert last["usage"]["prompt_tokens_details"] == {"cached_tokens": 17}


def test_usage_can_be_in_every_chunk(http: httpx.Client) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = {"messages": HELLO, "stream": True, "stream_options": options, "max_tokens": 3}
    chunks = events(http.post("/v1/chat/completions", json=body))
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == [1, 1, 2, 3, 3, 3]


def test_a_server_can_limit_answers(serving: Callable[..., str], engine: Any) -> None:
    with httpx.Client(base_url=serving(engine, limits=Limits(answer_tokens=4)), timeout=20) as http:
        for asked, given in ((None, 4), (-1, 4), (50, 4), (2, 2)):
            body = {"messages": HELLO, "max_tokens": asked}
            answer = http.post("/v1/chat/completions", json=body).json()
            assert answer["usage"]["completion_tokens"] == given
            assert answer["choices"][0]["finish_reason"] == "length"


def test_an_answer_that_takes_too_long_is_cut_and_one_that_never_begins_fails(
    http: httpx.Client, engine: Any
) -> None:
    engine.pace = 0.05
    cut = http.post("/v1/chat/completions", json={"messages": HELLO, "timeout": 0.2}).json()
    assert cut["choices"][0]["finish_reason"] == "length"
    assert 0 < cut["usage"]["completion_tokens"] < 12
    late = http.post("/v1/chat/completions", json={"messages": HELLO, "timeout": 1e-9})
    assert (late.status_code, late.json()["error"]["code"]) == (504, "timeout")


def test_a_stream_is_ascii_and_not_held_back_by_proxies(http: httpx.Client, engine: Any) -> None:
    engine.script = "a\x85b"  # the end of a line to some readers of lines
    with http.stream("POST", "/v1/chat/completions", json={"messages": HELLO, "stream": True}) as response:
        assert response.headers["x-accel-buffering"] == "no"
        data = response.read()
    assert data.isascii()
    lines = [line for line in httpx.Response(200, content=data).iter_lines() if line]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text.encode("latin-1")[0:1] == b"a"


@pytest.mark.parametrize(
    "message, param",
    [
        ({"role": "user", "content": "Hi", "images": ["aGk="]}, "messages[0].images"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "messages[0].content"),
        ({"role": "user", "content": [{"text": "Hi"}]}, "messages[0].content"),
        ({"role": "user", "content": None}, "messages[0].content"),
        ({"role": "tool", "tool_call_id": "x"}, "messages[0].content"),
        ({"role": "assistant", "function_call": {"name": "f"}}, "messages[0].function_call"),
        ({"role": "assistant", "tool_calls": [{"function": {}}]}, "messages[0].tool_calls[0].function.name"),
        ({"role": "user", "content": "", "tool_calls": [CALL]}, "messages[0].tool_calls"),
        ({"role": "function", "content": "Hi"}, "messages[0].role"),
    ],
)  # fmt: skip
def test_what_messages_cannot_hold_is_named(http: httpx.Client, message: dict[str, Any], param: str) -> None:
    response = http.post("/v1/chat/completions", json={"messages": [message]})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


def test_a_strict_server_takes_what_openai_has(serving: Callable[..., str], engine: Any) -> None:
    message = {**HELLO[0], "name": "x"}
    body = {"messages": [message], "user": "me", "store": False, "max_tokens": 5, "temperature": 0}
    with httpx.Client(base_url=serving(engine, strict=True), timeout=20) as http:
        assert http.post("/v1/chat/completions", json=body).status_code == 200
        for extra in ({"max_tokens": -1}, {"max_tokens": 8.0}, {"keep_alive": "5m"}):
            response = http.post("/v1/chat/completions", json={**body, **extra})
            assert response.json()["error"]["param"] == next(iter(extra))
        extra_field = {"messages": [{**message, "cache_control": {}}]}
        response = http.post("/v1/chat/completions", json=extra_field)
        assert response.json()["error"]["param"] == "messages[0].cache_control"
