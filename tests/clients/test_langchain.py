"""LangChain: langchain-openai and langchain-ollama."""

from typing import Any

import pytest
from tests.clients.conftest import KEY, MODEL
from tests.clients.weather import QUESTION, Place, Weather, get_weather

langchain_openai = pytest.importorskip("langchain_openai", reason="needs the extra clients")
pytestmark = pytest.mark.slow


@pytest.fixture
def chat(server: str) -> Any:
    return langchain_openai.ChatOpenAI(
        base_url=f"{server}/v1", api_key=KEY, model=MODEL, max_retries=0, temperature=0, max_tokens=60
    )


def test_a_bound_tool_makes_a_round_trip(chat: Any) -> None:
    from langchain_core.messages import HumanMessage
    from langchain_core.tools import tool

    weather = tool(get_weather)
    calling = chat.bind_tools([weather], tool_choice="get_weather", parallel_tool_calls=False)
    question = HumanMessage(QUESTION)
    answer = calling.invoke([question])
    [call] = answer.tool_calls
    Place.model_validate(call["args"])
    result = weather.invoke(call)
    assert result.tool_call_id == call["id"]
    after = chat.bind_tools([weather], tool_choice="none").invoke([question, answer, result])
    assert after.content
    assert not after.tool_calls


def test_a_streamed_call_is_put_together(chat: Any) -> None:
    calling = chat.bind_tools([get_weather], tool_choice="required", parallel_tool_calls=False)
    first, *rest = calling.stream(QUESTION)
    for chunk in rest:
        first += chunk
    [call] = first.tool_calls
    Place.model_validate(call["args"])


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output_is_an_object(chat: Any, method: str) -> None:
    assert isinstance(chat.with_structured_output(Weather, method=method).invoke(QUESTION), Weather)
