"""The openai package: chat, streams, tools, structured output, responses and embeddings."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from tests.clients.conftest import EMBEDDER, KEY, MODEL
from tests.clients.weather import QUESTION, REPORT, TOOL, Place, Weather

HELLO: Any = [{"role": "user", "content": "Say hello."}]
ASKED: Any = [{"role": "user", "content": QUESTION}]
NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}


@pytest.fixture(scope="module")
def client(server: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server}/v1", api_key=KEY, max_retries=0, timeout=120) as client:
        yield client


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).id == MODEL


def test_a_stream_is_the_answer_in_pieces(client: openai.OpenAI) -> None:
    settings: Any = {"model": MODEL, "messages": HELLO, "max_completion_tokens": 16, "temperature": 0}
    answer = client.chat.completions.create(**settings)
    [choice] = answer.choices
    assert choice.message.content
    chunks = list(
        client.chat.completions.create(**settings, stream=True, stream_options={"include_usage": True})
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == choice.message.content
    assert answer.usage is not None
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens == 16


@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
def test_a_tool_makes_a_round_trip(client: openai.OpenAI, choice: Any) -> None:
    settings: Any = {"model": MODEL, "tools": [TOOL], "temperature": 0, "max_tokens": 60}
    answer = client.chat.completions.create(
        messages=ASKED, tool_choice=choice, parallel_tool_calls=False, **settings
    ).choices[0]
    assert answer.finish_reason == "tool_calls"
    [call] = answer.message.tool_calls or ()
    assert call.type == "function"
    assert call.function.name == "get_weather"
    Place.model_validate_json(call.function.arguments)
    result = {"role": "tool", "tool_call_id": call.id, "content": REPORT}
    history = [*ASKED, answer.message, result]
    after = client.chat.completions.create(messages=history, tool_choice="none", **settings)
    assert after.choices[0].message.content
    assert after.choices[0].message.tool_calls is None


def test_parse_gives_an_object(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=MODEL, messages=ASKED, response_format=Weather, temperature=0
    ).choices[0]
    assert answer.finish_reason == "stop"
    assert isinstance(answer.message.parsed, Weather)


def test_parse_gives_the_arguments_of_a_call(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=MODEL,
        messages=ASKED,
        tools=[openai.pydantic_function_tool(Place)],
        tool_choice="required",
        parallel_tool_calls=False,
    ).choices[0]
    [call] = answer.message.tool_calls or ()
    assert isinstance(call.function.parsed_arguments, Place)


def test_a_stream_gives_an_object(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL, messages=ASKED, response_format=Weather, temperature=0
    ) as stream:
        kinds = {event.type for event in stream}
        parsed = stream.get_final_completion().choices[0].message.parsed
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert isinstance(parsed, Weather)


def test_any_object_is_one(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=ASKED, response_format={"type": "json_object"}, temperature=0, max_tokens=80
    ).choices[0]
    text = answer.message.content or ""
    assert text.startswith("{")
    assert answer.finish_reason == "length" or isinstance(json.loads(text), dict)


def test_a_short_answer_does_not_wait_for_a_long_one(client: openai.OpenAI) -> None:
    long = client.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=1500, stream=True, extra_body={"ignore_eos": True}
    )
    with long:
        chunks = iter(long)
        next(chunks)
        short = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=2, temperature=0)
        assert short.choices[0].message.content
        # What had arrived meanwhile is read first; the end of 1,500 tokens is not among it.
        come = [next(chunks) for _ in range(20)]
    assert all(chunk.choices[0].finish_reason is None for chunk in come)


def test_a_response_is_made(client: openai.OpenAI) -> None:
    settings: Any = {"model": MODEL, "input": "Say hello.", "temperature": 0, "max_output_tokens": 16}
    whole = client.responses.create(**settings)
    assert whole.output_text
    assert whole.usage is not None
    assert whole.usage.output_tokens == 16
    events = list(client.responses.create(**settings, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(pieces) == whole.output_text


def test_a_response_is_parsed(client: openai.OpenAI) -> None:
    parsed = client.responses.parse(model=MODEL, input=QUESTION, text_format=Weather, temperature=0)
    assert isinstance(parsed.output_parsed, Weather)


def test_a_tool_of_a_response_makes_a_round_trip(client: openai.OpenAI) -> None:
    tool: Any = {"type": "function", **TOOL["function"], "strict": True}
    settings: Any = {"model": MODEL, "tools": [tool], "temperature": 0, "max_output_tokens": 60}
    turns: Any = [{"role": "user", "content": QUESTION}]
    answer = client.responses.create(
        input=turns, tool_choice="required", parallel_tool_calls=False, **settings
    )
    [call] = answer.output
    assert call.type == "function_call"
    assert call.name == "get_weather"
    Place.model_validate_json(call.arguments)
    turns += [*answer.output, {"type": "function_call_output", "call_id": call.call_id, "output": REPORT}]
    assert client.responses.create(input=turns, tool_choice="none", **settings).output_text


def test_embeddings_are_those_of_their_texts(server: str) -> None:
    with openai.OpenAI(base_url=f"{server}/v1", api_key=KEY, max_retries=0, timeout=120) as client:
        found = client.embeddings.create(model=EMBEDDER, input=["a text", "another one", "a text"]).data
        plain = client.embeddings.create(model=EMBEDDER, input="a text", encoding_format="float").data
    assert [one.index for one in found] == [0, 1, 2]
    assert found[0].embedding == found[2].embedding != found[1].embedding
    assert plain[0].embedding == pytest.approx(found[0].embedding, abs=1e-6)
    assert sum(x * x for x in found[0].embedding) == pytest.approx(1)
