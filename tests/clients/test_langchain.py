"""LangChain: langchain-openai and langchain-ollama."""

from typing import Any

import pytest
from tests.clients.conftest import EMBEDDER, KEY, MODEL
from tests.clients.weather import QUESTION, REPORT, Place, Weather, get_weather

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


def test_the_responses_api_gives_objects_and_calls_too(server: str) -> None:
    chat = langchain_openai.ChatOpenAI(
        base_url=f"{server}/v1",
        api_key=KEY,
        model=MODEL,
        max_retries=0,
        temperature=0,
        max_tokens=60,
        use_responses_api=True,
    )
    assert isinstance(chat.with_structured_output(Weather, method="json_schema").invoke(QUESTION), Weather)
    calling = chat.bind_tools([get_weather], tool_choice="any", parallel_tool_calls=False)
    [call] = calling.invoke(QUESTION).tool_calls
    Place.model_validate(call["args"])


@pytest.fixture
def ollama_chat(server: str) -> Any:
    from langchain_ollama import ChatOllama

    return ChatOllama(base_url=server, model=MODEL, temperature=0, num_predict=60)


def test_ollamas_stream_is_the_answer_in_pieces(ollama_chat: Any) -> None:
    whole = ollama_chat.invoke("Say hello.").content
    assert whole
    assert "".join(chunk.content for chunk in ollama_chat.stream("Say hello.")) == whole


def test_structured_output_of_ollama_is_an_object(ollama_chat: Any) -> None:
    chat = ollama_chat.with_structured_output(Weather, method="json_schema")
    assert isinstance(chat.invoke(QUESTION), Weather)


def test_a_result_of_a_tool_reaches_ollamas_model(ollama_chat: Any) -> None:
    """Ollama's API cannot ask for a call, so this one is said to have been made."""
    from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

    call = {"name": "get_weather", "args": {"city": "Rome"}, "id": "call-1", "type": "tool_call"}
    history = [HumanMessage(QUESTION), AIMessage("", tool_calls=[call])]
    history.append(ToolMessage(REPORT, tool_call_id="call-1"))
    answer = ollama_chat.bind_tools([get_weather]).invoke(history)
    assert answer.content or answer.tool_calls


def test_embeddings_of_openai_and_ollama_agree(server: str) -> None:
    from langchain_ollama import OllamaEmbeddings

    # By default it sends ids of OpenAI's tokenizer, which it fetches first.
    openai = langchain_openai.OpenAIEmbeddings(
        base_url=f"{server}/v1", api_key=KEY, model=EMBEDDER, check_embedding_ctx_length=False
    )
    by_openai = openai.embed_documents(["a text", "another one"])
    by_ollama = OllamaEmbeddings(base_url=server, model=EMBEDDER).embed_documents(["a text", "another one"])
    for one, other in zip(by_openai, by_ollama, strict=True):
        assert one == pytest.approx(other, abs=1e-6)
