"""The anthropic package: messages, streams, tools, counts of tokens."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.clients.conftest import KEY, MODEL
from tests.clients.weather import QUESTION, REPORT, Place

anthropic = pytest.importorskip("anthropic", reason="needs the extra clients")
pytestmark = pytest.mark.slow

# The package has no field for it any more.
GREEDY: Any = {"extra_body": {"temperature": 0}}
ASKED: Any = [{"role": "user", "content": QUESTION}]
TOOL: Any = {"name": "get_weather", "input_schema": Place.model_json_schema()}


@pytest.fixture(scope="module")
def client(server: str) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=server, api_key=KEY, max_retries=0, timeout=120) as client:
        yield client


def test_a_stream_is_the_message_in_pieces(client: Any) -> None:
    settings: Any = {"model": MODEL, "messages": ASKED, "max_tokens": 16, **GREEDY}
    whole = client.messages.create(**settings)
    [block] = whole.content
    assert block.text
    assert (whole.stop_reason, whole.usage.output_tokens) == ("max_tokens", 16)
    with client.messages.stream(**settings) as stream:
        assert "".join(stream.text_stream) == block.text
        assert stream.get_final_message().usage.output_tokens == 16
    counted = client.messages.count_tokens(model=MODEL, messages=ASKED)
    assert counted.input_tokens == whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}])
def test_a_tool_makes_a_round_trip(client: Any, choice: Any) -> None:
    settings: Any = {"model": MODEL, "tools": [TOOL], "max_tokens": 60, **GREEDY}
    choice = {**choice, "disable_parallel_tool_use": True}
    answer = client.messages.create(messages=ASKED, tool_choice=choice, **settings)
    assert answer.stop_reason == "tool_use"
    [call] = answer.content
    assert call.name == "get_weather"
    Place.model_validate(call.input)
    result = {"type": "tool_result", "tool_use_id": call.id, "content": REPORT}
    history = [*ASKED, {"role": "assistant", "content": answer.content}]
    history.append({"role": "user", "content": [result]})
    after = client.messages.create(messages=history, tool_choice={"type": "none"}, **settings)
    assert after.content[0].type == "text"
