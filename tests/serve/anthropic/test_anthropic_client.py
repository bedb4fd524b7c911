"""The `anthropic` client (extra `clients`): streams that it puts together, tools, counts, exceptions."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel
from tests.serve.dialects import QWEN
from tests.serve.scripted_engine import ScriptedEngine

from rockledge.model.chat import ChatTemplate
from rockledge.serve.safety.checks import Safety
from rockledge.serve.safety.key_file import KeyLimits, add_key
from rockledge.serve.safety.keys import Keys

anthropic = pytest.importorskip("anthropic")

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
WEATHER: Any = {
    "name": "weather",
    "description": "How the weather is",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


class Place(BaseModel):
    city: str
    people: int


HELLO: Any = [{"role": "user", "content": "How is Oslo?"}]


@pytest.fixture(scope="module")
def scripted(
    start_server: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ScriptedEngine, Any]]:
    """An engine that answers as it is told, behind a server that asks for a key, and a client of it."""
    engine, path = ScriptedEngine(), tmp_path_factory.mktemp("keys") / "keys.json"
    key = add_key(path, "someone", KeyLimits())
    safety = Safety(keys=Keys(path))
    url = start_server(engine, chat=ChatTemplate(QWEN, {}), context=4096, safety=safety)
    with anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, timeout=30) as client:
        yield engine, client


def create(client: Any, **asked: Any) -> Any:
    return client.messages.create(**{"model": "scripted", "max_tokens": 500, "messages": HELLO, **asked})


def test_tools_make_a_round_trip(scripted: tuple[ScriptedEngine, Any]) -> None:
    engine, client = scripted
    engine.script = f"<think>Hm</think>Let me see\n{CALL}"
    first = create(client, tools=[WEATHER], system="Be brief")
    assert [block.type for block in first.content] == ["thinking", "text", "tool_use"]
    assert (first.stop_reason, first.content[2].input) == ("tool_use", {"city": "Oslo"})
    result = {"type": "tool_result", "tool_use_id": first.content[2].id, "content": "mild"}
    turns = [*HELLO, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    engine.script = "It is mild"
    second = create(client, messages=turns, tools=[WEATHER])
    assert [block.text for block in second.content] == ["It is mild"]
    prompt = bytes(token for token in engine.requests[-1].prompt if token < 256).decode()
    assert "<tool_response>\nmild\n</tool_response>" in prompt


def test_a_stream_is_put_together(scripted: tuple[ScriptedEngine, Any]) -> None:
    engine, client = scripted
    engine.script = f"<think>Hm</think>Yes\n{CALL}"
    asked: Any = {"model": "scripted", "max_tokens": 500, "messages": HELLO, "tools": [WEATHER]}
    with client.messages.stream(**asked) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    assert {"thinking", "signature", "text", "input_json", "message_stop"} <= set(kinds)
    whole = client.messages.create(**asked)
    assert [block.type for block in final.content] == ["thinking", "text", "tool_use"]
    assert final.content[0].signature == whole.content[0].signature
    assert final.content[2].input == {"city": "Oslo"}
    assert final.usage.model_dump(exclude_none=True) == whole.usage.model_dump(exclude_none=True)
    assert final.stop_reason == whole.stop_reason == "tool_use"


def test_the_clients_own_loop_runs_tools(scripted: tuple[ScriptedEngine, Any]) -> None:
    """It asks the server to store the conversation, and sends all of it where that is refused."""
    engine, client = scripted
    engine.script = CALL

    @anthropic.beta_tool  # type: ignore[untyped-decorator]
    def weather(city: str) -> str:
        """How the weather is"""
        engine.script = f"It is mild in {city}"
        return "mild"

    asked: Any = {"model": "scripted", "max_tokens": 500, "messages": HELLO, "tools": [weather]}
    found = client.beta.messages.tool_runner(**asked).until_done()
    assert [block.text for block in found.content] == ["It is mild in Oslo"]


def test_an_answer_is_parsed(scripted: tuple[ScriptedEngine, Any]) -> None:
    engine, client = scripted
    engine.script = '{"city": "Oslo", "people": 700000}'
    asked: Any = {"model": "scripted", "max_tokens": 500, "messages": HELLO, "output_format": Place}
    assert client.messages.parse(**asked).parsed_output == Place(city="Oslo", people=700000)
    constraint = engine.requests[-1].constraint
    assert constraint is not None
    assert json.loads(constraint.text)["required"] == ["city", "people"]


def test_tokens_are_counted(scripted: tuple[ScriptedEngine, Any]) -> None:
    _, client = scripted
    counted = client.messages.count_tokens(model="scripted", messages=HELLO, tools=[WEATHER])
    assert counted.input_tokens == create(client, tools=[WEATHER]).usage.input_tokens


def test_mistakes_are_the_clients_exceptions(scripted: tuple[ScriptedEngine, Any]) -> None:
    engine, client = scripted
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        create(client, messages=[{"role": "user", "content": "x" * 9000}])
    with pytest.raises(anthropic.NotFoundError, match="not_found_error"):
        create(client, model="claude")
    with pytest.raises(anthropic.AuthenticationError, match="authentication_error"):
        create(client.with_options(api_key="wrong"))
    engine.fail_after = 3
    try:
        with pytest.raises(anthropic.APIStatusError, match="api_error"):
            list(create(client, stream=True))
    finally:
        engine.reset()
