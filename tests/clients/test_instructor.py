"""instructor: models of pydantic by tools and by JSON schemas, whole and in parts."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from tests.clients.conftest import KEY, MODEL
from tests.clients.weather import QUESTION, Weather

instructor = pytest.importorskip("instructor", reason="needs the extra clients")
pytestmark = pytest.mark.slow

ASKED: Any = {"model": MODEL, "max_retries": 0, "max_tokens": 60, "temperature": 0}
ASKED["messages"] = [{"role": "user", "content": QUESTION}]


@pytest.fixture
def client(server: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server}/v1", api_key=KEY, max_retries=0, timeout=120) as client:
        yield client


@pytest.mark.parametrize("mode", ["TOOLS", "JSON_SCHEMA", "RESPONSES_TOOLS"])
def test_an_answer_is_the_model_that_was_asked_for(client: openai.OpenAI, mode: str) -> None:
    asking = instructor.from_openai(client, mode=instructor.Mode[mode])
    assert isinstance(asking.chat.completions.create(response_model=Weather, **ASKED), Weather)


def test_a_stream_fills_the_model_bit_by_bit(client: openai.OpenAI) -> None:
    asking = instructor.from_openai(client, mode=instructor.Mode.JSON_SCHEMA)
    *partial, last = asking.chat.completions.create_partial(response_model=Weather, **ASKED)
    assert len(partial) > 1
    Weather.model_validate(last.model_dump())
