"""The `ollama` package against servers over a scripted engine and over a real one with a random toy model."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from tests.serve.ollama.conftest import prompt
from tests.serve.scripted_engine import ScriptedEngine

from rockledge.runtime.engine import Engine
from rockledge.synth import synth_artifact

ollama = pytest.importorskip("ollama")
pytestmark = pytest.mark.slow  # as the package comes with `make test-all`

HELLO: Any = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def client(qwen: httpx.Client, engine: ScriptedEngine) -> Any:
    return ollama.Client(host=str(qwen.base_url))


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory, start_server: Callable[..., str]) -> Iterator[Any]:
    """A client of a server with a real engine."""
    path = synth_artifact("toy", tmp_path_factory.mktemp("models") / "toy", seed=11)
    with Engine.load(path, threads=1) as engine:
        yield ollama.Client(host=start_server(engine))


def test_models_are_listed_shown_and_pulled(client: Any) -> None:
    assert "scripted:latest" in [model.model for model in client.list().models]
    assert client.show("scripted").capabilities == ["completion", "tools", "thinking"]
    assert client.pull("scripted").status == "success"
    assert [step.status for step in client.pull("scripted", stream=True)][-1] == "success"
    client.generate("scripted", keep_alive=-1)
    [loaded] = client.ps().models
    assert loaded.context_length == 4096


def test_a_chat_whole_streamed_and_asynchronous(client: Any, qwen: httpx.Client) -> None:
    answer = client.chat("scripted", messages=HELLO, options=ollama.Options(temperature=0, num_ctx=8192))
    assert answer.message.content == "Hello, world"
    assert answer.done_reason == "stop"
    chunks = list(client.chat("scripted", messages=HELLO, stream=True))
    assert "".join(chunk.message.content for chunk in chunks) == "Hello, world"

    async def streamed() -> str:
        found = await ollama.AsyncClient(host=str(qwen.base_url)).chat(
            "scripted", messages=HELLO, stream=True
        )
        return "".join([chunk.message.content async for chunk in found])

    assert asyncio.run(streamed()) == "Hello, world"


def weather(city: str) -> str:
    """The weather of a city.

    Args:
        city: its name
    """
    return f"Sun in {city}"


def test_a_round_of_tools_by_functions(client: Any, engine: ScriptedEngine) -> None:
    engine.script = '<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call>'
    messages = [*HELLO]
    answer = client.chat("scripted", messages=messages, tools=[weather])
    [call] = answer.message.tool_calls
    result = weather(**call.function.arguments)
    messages += [answer.message, {"role": "tool", "content": result, "tool_name": call.function.name}]
    engine.script = "Fine."
    assert client.chat("scripted", messages=messages, tools=[weather]).message.content == "Fine."
    assert "Sun in Paris" in prompt(engine)
    assert "its name" in prompt(engine)


def test_thoughts_and_forms(client: Any, engine: ScriptedEngine) -> None:
    engine.script = "<think>Hm.</think>Yes."
    answer = client.chat("scripted", messages=HELLO, think=True)
    assert (answer.message.thinking, answer.message.content) == ("Hm.", "Yes.")
    assert client.generate("scripted", "Hi", think="low").thinking == "Hm."
    engine.script = "{}"
    client.chat("scripted", messages=HELLO, format={"type": "object"})
    assert engine.requests[-1].constraint is not None
    client.generate("scripted", "Hi", format="json")
    assert engine.requests[-1].constraint.kind == "json"  # type: ignore[union-attr]


def test_errors_have_their_status_and_sentence(client: Any, serving: Callable[..., str]) -> None:
    for ask, status, words in (
        (lambda: client.chat("nothing", messages=HELLO), 404, "not found, try pulling it first"),
        (lambda: client.chat("nothing", messages=HELLO, stream=True).__next__(), 404, "not found"),
        (lambda: client.pull("nothing"), 404, "fetches none"),
        (lambda: client.delete("scripted"), 403, "does not delete models"),
        (lambda: client.embed("scripted", "Hi"), 400, "not made for embeddings"),
        (lambda: client.chat("scripted", [{**HELLO[0], "images": [b"GIF"]}]), 400, "images"),
    ):
        with pytest.raises(ollama.ResponseError, match=words) as caught:
            ask()
        assert caught.value.status_code == status
    failing = ScriptedEngine()
    failing.fail_after = 2
    with pytest.raises(ollama.ResponseError, match="engine"):
        list(ollama.Client(host=serving(failing)).generate("scripted", "Hi", stream=True))


def test_embeddings_of_a_model_that_pools(serving: Callable[..., str]) -> None:
    engine: Any = ScriptedEngine()
    client = ollama.Client(host=serving(engine, pools=True))
    assert len(client.embed("scripted", ["a", "b"]).embeddings) == 2
    assert len(client.embeddings("scripted", "a").embedding) == 4


def test_a_real_engine_measures_itself_and_finds_what_it_has_read(toy: Any) -> None:
    settings = {"temperature": 0, "num_predict": 8, "seed": 1}
    text = "Tell me about rivers. " * 20
    first = toy.generate("toy", text, options=settings)
    assert first.prompt_eval_count > 32
    assert 0 < first.prompt_eval_duration < first.total_duration
    assert 0 < first.eval_duration < first.total_duration
    assert first.eval_count == len(first.context) - first.prompt_eval_count
    again = toy.generate("toy", text, options=settings)
    assert again.response == first.response
    assert again.prompt_eval_duration < first.prompt_eval_duration
    streamed = "".join(chunk.response for chunk in toy.generate("toy", text, options=settings, stream=True))
    assert streamed == first.response
