"""LiteLLM, by five of its providers: each asks a server in its own way."""

import os
from typing import Any

import pytest
from tests.clients.conftest import EMBEDDER, KEY, MODEL
from tests.clients.weather import QUESTION, REPORT, TOOL, Place, Weather

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it fetches a list of prices when it is imported
litellm = pytest.importorskip("litellm", reason="needs the extra clients")
pytestmark = pytest.mark.slow

# Providers, and what follows the server's address in their `api_base`.
PROVIDERS = {
    "openai": "/v1",
    "hosted_vllm": "/v1",
    "text-completion-openai": "/v1",
    "ollama_chat": "",
    "anthropic": "",
}
ASKED = [{"role": "user", "content": QUESTION}]
STRUCTURED = ["openai", "hosted_vllm", "ollama_chat"]
CALLING = ["openai", "hosted_vllm", "anthropic"]
# LiteLLM has no such error for Ollama.
EXCEEDING = [provider for provider in PROVIDERS if provider != "ollama_chat"]


def ask(server: str, provider: str, **fields: Any) -> Any:
    settings = {"messages": ASKED, "temperature": 0, "max_tokens": 60, "api_key": KEY, "num_retries": 0}
    base = server + PROVIDERS[provider]
    return litellm.completion(model=f"{provider}/{MODEL}", api_base=base, **{**settings, **fields})


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_stream_is_the_answer_in_pieces(server: str, provider: str) -> None:
    answer = ask(server, provider, max_tokens=16)
    text = answer.choices[0].message.content
    assert text
    assert 0 < answer.usage.completion_tokens <= 16
    chunks = ask(server, provider, max_tokens=16, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text


@pytest.mark.parametrize("provider", STRUCTURED)
def test_an_answer_has_the_form_that_was_asked_for(server: str, provider: str) -> None:
    answer = ask(server, provider, response_format=Weather)
    Weather.model_validate_json(answer.choices[0].message.content)


@pytest.mark.parametrize("provider", CALLING)
def test_a_tool_makes_a_round_trip(server: str, provider: str) -> None:
    answer = ask(server, provider, tools=[TOOL], tool_choice="required", parallel_tool_calls=False)
    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls"
    [call] = choice.message.tool_calls
    assert call.function.name == "get_weather"
    Place.model_validate_json(call.function.arguments)
    result = {"role": "tool", "tool_call_id": call.id, "name": "get_weather", "content": REPORT}
    history = [*ASKED, choice.message.model_dump(), result]
    after = ask(server, provider, messages=history, tools=[TOOL], tool_choice="none")
    assert after.choices[0].message.content


@pytest.mark.parametrize("provider", EXCEEDING)
def test_a_prompt_that_does_not_fit_is_known_as_such(server: str, provider: str) -> None:
    with pytest.raises(litellm.ContextWindowExceededError, match=r"30[03]1 tokens"):
        ask(server, provider, messages=[{"role": "user", "content": "word " * 3000}])


def test_texts_become_embeddings_and_are_ranked(server: str) -> None:
    settings: Any = {"api_key": KEY, "model": f"hosted_vllm/{EMBEDDER}", "api_base": f"{server}/v1"}
    first, second = litellm.embedding(input=["a text", "another one"], **settings).data
    [by_ollama, _] = litellm.embedding(
        model=f"ollama/{EMBEDDER}", api_base=server, input=["a text", "another one"]
    ).data
    assert first["embedding"] == pytest.approx(by_ollama["embedding"], abs=1e-6)
    assert first["embedding"] != second["embedding"]
    ranked = litellm.rerank(query="a text", documents=["another one", "a text"], **settings).results
    assert [result["index"] for result in ranked] == [1, 0]
