"""The `openai` client's helpers for responses: they follow the events and hold them against each other."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel
from tests.serve.dialects import QWEN
from tests.serve.scripted_engine import ScriptedEngine

from rockledge.model.chat import ChatTemplate

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "How the weather is",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


class Place(BaseModel):
    city: str
    people: int


@pytest.fixture(scope="module")
def scripted(start_server: Callable[..., str]) -> Iterator[tuple[ScriptedEngine, openai.OpenAI]]:
    engine = ScriptedEngine()
    url = start_server(engine, chat=ChatTemplate(QWEN, {}), context=4096)
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=30) as client:
        yield engine, client


def test_a_stream_is_put_together(scripted: tuple[ScriptedEngine, openai.OpenAI]) -> None:
    engine, client = scripted
    engine.script = f"<think>Hm</think>Yes\n{CALL}"
    with client.responses.stream(model="scripted", input="Hi", tools=[WEATHER]) as stream:
        kinds = [event.type for event in stream]
        final: Any = stream.get_final_response()
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    reasoning, message, call = final.output
    assert [part.text for part in reasoning.content] == ["Hm"]
    assert message.content[0].text == final.output_text == "Yes\n"
    assert (call.name, call.parsed_arguments) == ("weather", {"city": "Oslo"})


def test_tools_make_a_round_trip(scripted: tuple[ScriptedEngine, openai.OpenAI]) -> None:
    engine, client = scripted
    engine.script = f"<think>Hm</think>Let me see\n{CALL}"
    items: Any = [{"role": "user", "content": "How is Oslo?"}]
    first: Any = client.responses.create(model="scripted", input=items, tools=[WEATHER], store=False)
    items += first.output  # as OpenAI's guide has it
    [call] = [item for item in first.output if item.type == "function_call"]
    items.append({"type": "function_call_output", "call_id": call.call_id, "output": "mild"})
    engine.script = "It is mild"
    second = client.responses.create(model="scripted", input=items, tools=[WEATHER], store=False)
    assert second.output_text == "It is mild"
    prompt = bytes(token for token in engine.requests[-1].prompt if token < 256).decode()
    assert f"assistant\nLet me see\n\n{CALL}<|im_end|>" in prompt
    assert "<tool_response>\nmild\n</tool_response>" in prompt


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_parsed(scripted: tuple[ScriptedEngine, openai.OpenAI], stream: bool) -> None:
    engine, client = scripted
    engine.script = '{"city": "Oslo", "people": 700000}'
    asked: Any = {"model": "scripted", "input": "Where?", "text_format": Place}
    if stream:
        with client.responses.stream(**asked) as events:
            events.until_done()
            found: Any = events.get_final_response()
    else:
        found = client.responses.parse(**asked)
    assert found.output_parsed == Place(city="Oslo", people=700000)
    constraint = engine.requests[-1].constraint
    assert constraint is not None
    assert json.loads(constraint.text)["required"] == ["city", "people"]


def test_mistakes_are_the_clients_exceptions(scripted: tuple[ScriptedEngine, openai.OpenAI]) -> None:
    _, client = scripted
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="scripted", input="Hi", previous_response_id="resp_1")
    assert caught.value.param == "previous_response_id"
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_1")
    with pytest.raises(openai.NotFoundError) as missing:
        client.responses.create(model="gpt-4", input="Hi")
    assert missing.value.code == "model_not_found"
