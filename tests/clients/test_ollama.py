"""The ollama package: what it lists, chat, generate, embeddings."""

from typing import Any

import pytest
from tests.clients.conftest import EMBEDDER, MODEL
from tests.clients.weather import QUESTION, REPORT, Weather, get_weather

ollama = pytest.importorskip("ollama", reason="needs the extra clients")
pytestmark = pytest.mark.slow

ASKED: Any = [{"role": "user", "content": QUESTION}]
FEW: Any = {"temperature": 0, "num_predict": 16}


@pytest.fixture
def client(server: str) -> Any:
    return ollama.Client(host=server, timeout=120)


def test_the_model_is_told_of(client: Any) -> None:
    assert MODEL in {model.model.removesuffix(":latest") for model in client.list().models}
    shown = client.show(MODEL)
    assert shown.details.family == "llama"
    assert "completion" in shown.capabilities
    assert client.pull(MODEL).status == "success"
    with pytest.raises(ollama.ResponseError) as caught:
        client.pull("nothing-of-the-kind")
    assert 400 <= caught.value.status_code < 500
    client.generate(MODEL, "Hello", options=FEW)
    loaded = client.ps().models
    assert loaded
    assert all(model.expires_at.tzinfo is not None for model in loaded)


def test_a_stream_is_the_answer_in_pieces(client: Any) -> None:
    whole = client.chat(MODEL, ASKED, options=FEW)
    assert whole.message.content
    assert whole.eval_count == 16
    *chunks, last = client.chat(MODEL, ASKED, options=FEW, stream=True)
    assert "".join(chunk.message.content for chunk in [*chunks, last]) == whole.message.content
    assert last.done
    assert not any(chunk.done for chunk in chunks)
    assert last.eval_count == whole.eval_count


def test_an_answer_has_the_form_that_was_asked_for(client: Any) -> None:
    answer = client.chat(MODEL, ASKED, format=Weather.model_json_schema(), options={"temperature": 0})
    Weather.model_validate_json(answer.message.content)
    text = client.generate(MODEL, QUESTION, format=Weather.model_json_schema(), options={"temperature": 0})
    Weather.model_validate_json(text.response)


def test_a_schema_that_leaves_objects_open_ends_too(client: Any) -> None:
    """As Home Assistant sends them."""
    schema = {"type": "object", "properties": {"sunny": {"type": "boolean"}}, "required": ["sunny"]}
    answer = client.chat(MODEL, ASKED, format=schema, options={"temperature": 0, "num_predict": 40})
    assert answer.done_reason == "stop"
    assert answer.message.content in ('{"sunny": true}', '{"sunny": false}')


def test_a_result_of_a_tool_reaches_the_model(client: Any) -> None:
    """The API cannot ask for a call, so this one is said to have been made."""
    call = {"function": {"name": "get_weather", "arguments": {"city": "Rome"}}}
    history = [*ASKED, {"role": "assistant", "content": "", "tool_calls": [call]}]
    history.append({"role": "tool", "tool_name": "get_weather", "content": REPORT})
    answer = client.chat(MODEL, history, tools=[get_weather], options=FEW)
    assert answer.message.content or answer.message.tool_calls


def test_embeddings_are_those_of_their_texts(server: str) -> None:
    client = ollama.Client(host=server, timeout=120)
    first, second, third = client.embed(EMBEDDER, ["a text", "another one", "a text"]).embeddings
    assert first == third != second
    assert sum(x * x for x in first) == pytest.approx(1, abs=1e-4)
    assert len(client.embeddings(EMBEDDER, "a text").embedding) == len(first)
