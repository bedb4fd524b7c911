"""pydantic-ai: tools and output types."""

from typing import Any

import pytest
from tests.clients.conftest import KEY, MODEL
from tests.clients.weather import QUESTION, City, Weather, get_weather

pydantic_ai = pytest.importorskip("pydantic_ai", reason="needs the extra clients")
pytestmark = pytest.mark.slow

SETTINGS: Any = {"max_tokens": 60, "temperature": 0, "parallel_tool_calls": False}


@pytest.fixture
def model(server: str) -> Any:
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    return OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=f"{server}/v1", api_key=KEY))


@pytest.mark.parametrize("kind", ["ToolOutput", "NativeOutput"])
def test_an_output_type_is_made(model: Any, kind: str) -> None:
    output = getattr(pydantic_ai, kind)(Weather)
    agent = pydantic_ai.Agent(model, output_type=output, model_settings=SETTINGS)
    assert isinstance(agent.run_sync(QUESTION).output, Weather)


@pytest.mark.parametrize("api", ["responses", "anthropic"])
def test_other_apis_make_an_output_type_too(server: str, api: str) -> None:
    if api == "responses":
        from pydantic_ai.models.openai import OpenAIResponsesModel
        from pydantic_ai.providers.openai import OpenAIProvider

        provider = OpenAIProvider(base_url=f"{server}/v1", api_key=KEY)
        model: Any = OpenAIResponsesModel(MODEL, provider=provider)
    else:
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.providers.anthropic import AnthropicProvider

        model = AnthropicModel(MODEL, provider=AnthropicProvider(base_url=server, api_key=KEY))
    agent = pydantic_ai.Agent(model, output_type=Weather, model_settings=SETTINGS)
    assert isinstance(agent.run_sync(QUESTION).output, Weather)


def test_a_tool_is_called_before_the_output_is_made(model: Any) -> None:
    """The agent asks for the call in its first step, and offers the tool in that alone."""
    asked: list[str] = []

    def weather(city: City) -> str:
        asked.append(city)
        return get_weather(city)

    async def once(context: Any, tools: Any) -> Any:
        return tools if context.run_step == 1 else []

    def settings(context: Any) -> Any:
        return {**SETTINGS, "tool_choice": ["weather"]} if context.run_step == 1 else SETTINGS

    agent = pydantic_ai.Agent(
        model,
        output_type=Weather,
        tools=[weather],
        capabilities=[pydantic_ai.capabilities.PrepareTools(once)],
        model_settings=settings,
    )
    result = agent.run_sync(QUESTION)
    assert len(asked) == 1
    assert isinstance(result.output, Weather)
    parts = [part.part_kind for message in result.all_messages() for part in message.parts]
    assert parts[:4] == ["user-prompt", "tool-call", "tool-return", "tool-call"]


def test_text_is_streamed(model: Any) -> None:
    agent = pydantic_ai.Agent(model, model_settings={"max_tokens": 12, "temperature": 0})
    whole = agent.run_sync("Say hello.").output

    async def streamed() -> str:
        async with agent.run_stream("Say hello.") as result:
            return "".join([piece async for piece in result.stream_text(delta=True)])

    import asyncio

    assert asyncio.run(streamed()) == whole
