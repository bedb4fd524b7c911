"""The official `openai` client against a real server over a real engine with a random toy model."""

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import numpy as np
import openai
import pytest
from tests.serve.dialects import QWEN
from tests.serve.scripted_engine import ScriptedEngine

from rockledge.model.chat import ChatTemplate
from rockledge.runtime.engine import Engine
from rockledge.synth import synth_artifact

HELLO: Any = [{"role": "user", "content": "Tell me something."}]
IDS = [1, 40, 99, 17, 203, 64, 64, 5, 280, 33]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The engine behind the server."""
    path = synth_artifact("toy", tmp_path_factory.mktemp("models") / "toy", seed=11)
    with Engine.load(path, threads=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def client(toy: Engine, start_server: Callable[..., str]) -> Iterator[openai.OpenAI]:
    """A client that does not try again by itself."""
    with openai.OpenAI(
        base_url=f"{start_server(toy)}/v1", api_key="none", max_retries=0, timeout=30
    ) as client:
        yield client


def chat(client: openai.OpenAI, **settings: Any) -> Any:
    settings = {"temperature": 0, "max_tokens": 24, **settings}
    return client.chat.completions.create(model="toy", messages=HELLO, **settings)


def log_probabilities(engine: Engine, ids: list[int]) -> Any:
    logits = engine.logits(ids).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["toy"]
    assert client.models.retrieve("toy").owned_by == "rockledge"


def test_a_greedy_chat_takes_the_most_probable_tokens(client: openai.OpenAI, toy: Engine) -> None:
    assert toy.chat is not None
    answer = chat(client, logprobs=True, max_tokens=6)
    prompt = toy.tokenizer.encode(toy.chat.render(HELLO), bos=False)
    ids = list(prompt)
    for _ in range(answer.usage.completion_tokens):
        ids.append(int(toy.logits(ids)[-1].argmax()))
    assert answer.choices[0].message.content == "".join(map(toy.tokenizer.stream().push, ids[len(prompt) :]))
    assert answer.usage.prompt_tokens == len(prompt)
    rows = log_probabilities(toy, ids[:-1])[len(prompt) - 1 :]
    expected = [row[token] for row, token in zip(rows, ids[len(prompt) :], strict=True)]
    assert [entry.logprob for entry in answer.choices[0].logprobs.content] == pytest.approx(
        expected, abs=1e-6
    )


def test_a_stream_is_the_same_answer_in_pieces(client: openai.OpenAI) -> None:
    settings: Any = {"temperature": 1.0, "seed": 5}
    whole = chat(client, **settings)
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}, **settings))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert len(chunks) > 5


SCHEMA = {
    "type": "object",
    "properties": {
        "mood": {"enum": ["calm", "wild"]},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["mood", "age"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("logprobs", [False, True])
def test_an_answer_has_the_form_of_a_schema(client: openai.OpenAI, logprobs: bool) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "state", "schema": SCHEMA, "strict": True}}
    settings: Any = {"temperature": 1.0, "seed": 3, "max_tokens": 60, "logprobs": logprobs}
    answer = chat(client, response_format=form, **settings)
    text = answer.choices[0].message.content
    jsonschema.validate(json.loads(text), SCHEMA)
    assert answer.choices[0].finish_reason == "stop"
    if logprobs:
        assert "".join(entry.token for entry in answer.choices[0].logprobs.content) == text
    chunks = list(chat(client, response_format=form, stream=True, **settings))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    assert (
        chat(client, response_format=form, **{**settings, "max_tokens": 5}).choices[0].finish_reason
        == "length"
    )


@pytest.fixture(scope="module")
def caller(
    tmp_path_factory: pytest.TempPathFactory, start_server: Callable[..., str]
) -> Iterator[openai.OpenAI]:
    """A client of a model whose template knows tools, in few words: its context is 512 bytes."""
    path = synth_artifact("toy", tmp_path_factory.mktemp("callers") / "toy", seed=12)
    template = "{% for m in messages %}{{ m.content }}{% endfor %}{{ tools | tojson }}>"
    with (
        Engine.load(path, threads=1, chat_template=template) as engine,
        openai.OpenAI(base_url=f"{start_server(engine)}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


NOTE: Any = {
    "type": "object",
    "properties": {"x": {"enum": [1, 2]}},
    "required": ["x"],
    "additionalProperties": False,
}
TOOLS: Any = [{"type": "function", "function": {"name": "f", "parameters": NOTE}}]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "f"}}])
def test_a_call_that_has_to_be_made_is_made(caller: openai.OpenAI, choice: Any) -> None:
    settings: Any = {"temperature": 1.0, "seed": 4, "max_tokens": 90, "parallel_tool_calls": False}
    answer = chat(caller, tools=TOOLS, tool_choice=choice, **settings).choices[0]
    [call] = answer.message.tool_calls
    assert (answer.finish_reason, call.function.name) == ("tool_calls", "f")
    assert not answer.message.content
    arguments = json.loads(call.function.arguments)
    jsonschema.validate(arguments, NOTE)
    chunks = list(chat(caller, tools=TOOLS, tool_choice=choice, stream=True, **settings))
    deltas = [d for chunk in chunks if chunk.choices for d in chunk.choices[0].delta.tool_calls or ()]
    assert "".join(delta.function.name or "" for delta in deltas) == "f"
    assert json.loads("".join(delta.function.arguments or "" for delta in deltas)) == arguments


def test_a_call_and_another_form_contradict_each_other(caller: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="give one of them"):
        chat(caller, tools=TOOLS, tool_choice="required", response_format={"type": "json_object"})


@pytest.mark.parametrize(
    "body, pattern",
    [
        ({"structured_outputs": {"regex": "[ab]{4}"}}, "[ab]{4}"),
        ({"structured_outputs": {"choice": ["yes", "no"]}}, "yes|no"),
        ({"guided_choice": ["yes", "no"]}, "yes|no"),
        ({"grammar": 'root ::= "<" [x-z]{3} ">"'}, "<[x-z]{3}>"),
        ({"guided_grammar": 'start: "<" /[x-z]{3}/ ">"'}, "<[x-z]{3}>"),
        ({"json_schema": {"const": [1, "a"]}}, r'\[1, "a"\]'),
    ],
)
def test_other_forms_are_asked_for_by_the_names_of_others(
    client: openai.OpenAI, body: dict[str, Any], pattern: str
) -> None:
    assert re.fullmatch(pattern, chat(client, extra_body=body).choices[0].message.content)


def test_a_seed_fixes_the_answer(client: openai.OpenAI) -> None:
    texts = [chat(client, temperature=1.5, seed=seed).choices[0].message.content for seed in (1, 1, 2)]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_an_answer_ends_before_its_stop_string(client: openai.OpenAI) -> None:
    settings: Any = {"temperature": 1.2, "seed": 9, "max_tokens": 40}
    whole = chat(client, **settings).choices[0].message.content
    middle = whole[len(whole) // 2 :][:3]
    for stop in (middle, ["never to be seen", middle]):
        [choice] = chat(client, stop=stop, **settings).choices
        assert choice.message.content == whole[: whole.index(middle)]
        assert choice.finish_reason == "stop"


def test_a_prompt_of_token_ids_can_be_scored(client: openai.OpenAI, toy: Engine) -> None:
    done = client.completions.create(model="toy", prompt=IDS, max_tokens=0, echo=True, logprobs=3)
    scores: Any = done.choices[0].logprobs
    expected = log_probabilities(toy, IDS)
    assert scores.token_logprobs[0] is None
    assert scores.token_logprobs[1:] == pytest.approx(
        [expected[i][token] for i, token in enumerate(IDS[1:])], abs=1e-6
    )
    for row, top in zip(expected, scores.top_logprobs[1:], strict=False):
        assert max(top.values()) == pytest.approx(row.max(), abs=1e-6)
        assert len(top) in (3, 4)
    assert done.choices[0].text == toy.tokenizer.decode(IDS)
    assert done.usage is not None
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (10, 0)


def test_scores_do_not_depend_on_how_they_are_asked(client: openai.OpenAI) -> None:
    """What evaluation tools do: one more token, and only the scores of the prompt are used."""
    alone = client.completions.create(model="toy", prompt=IDS, max_tokens=0, echo=True, logprobs=1)
    batch = client.completions.create(
        model="toy", prompt=[IDS[:4], IDS], max_tokens=1, echo=True, logprobs=1, temperature=0
    )
    expected: Any = alone.choices[0].logprobs
    for choice, length in zip(batch.choices, (4, 10), strict=True):
        scores: Any = choice.logprobs
        assert len(scores.token_logprobs) == length + 1
        assert scores.token_logprobs[:length] == expected.token_logprobs[:length]


def test_a_completion_continues_a_text(client: openai.OpenAI) -> None:
    settings: Any = {"model": "toy", "prompt": "Once", "max_tokens": 8, "temperature": 0}
    plain = client.completions.create(**settings)
    echoed = client.completions.create(echo=True, **settings)
    assert echoed.choices[0].text == "Once" + plain.choices[0].text
    streamed = "".join(chunk.choices[0].text for chunk in client.completions.create(stream=True, **settings))
    assert streamed == plain.choices[0].text


def test_many_clients_get_what_each_would_get_alone(client: openai.OpenAI, toy: Engine) -> None:
    alone = [chat(client, temperature=1.0, seed=seed).choices[0].message.content for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = pool.map(lambda seed: chat(client, temperature=1.0, seed=seed), range(8))
        assert [answer.choices[0].message.content for answer in together] == alone
    assert toy.free_pages == toy.pages


def test_the_asynchronous_client_streams(client: openai.OpenAI) -> None:
    async def ask(asynchronous: openai.AsyncOpenAI, seed: int) -> str:
        settings: Any = {"messages": HELLO, "seed": seed, "max_tokens": 12, "stream": True}
        stream: Any = await asynchronous.chat.completions.create(model="toy", **settings)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def scenario() -> list[str]:
        async with openai.AsyncOpenAI(
            base_url=client.base_url, api_key="none", max_retries=0
        ) as asynchronous:
            return await asyncio.gather(*(ask(asynchronous, seed) for seed in (3, 3, 4)))

    first, second, third = asyncio.run(scenario())
    assert first == second != third


def test_leaving_a_stream_gives_its_memory_back(client: openai.OpenAI, toy: Engine) -> None:
    stream = chat(client, stream=True, max_tokens=450, temperature=1.0, extra_body={"ignore_eos": True})
    next(iter(stream))
    stream.close()
    end = time.monotonic() + 10
    while toy.free_pages != toy.pages:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_context_is_filled_and_not_more(client: openai.OpenAI, toy: Engine) -> None:
    answer = chat(client, max_tokens=100_000, temperature=1.0, extra_body={"ignore_eos": True})
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.total_tokens == toy.context


def test_a_second_turn_finds_the_first_in_the_cache(client: openai.OpenAI) -> None:
    opening: Any = [{"role": "user", "content": "Tell me " + "more and " * 20}]
    first = client.chat.completions.create(model="toy", messages=opening, temperature=0, max_tokens=40)
    assert first.usage is not None
    answer: Any = {"role": "assistant", "content": first.choices[0].message.content}
    turns = [*opening, answer, {"role": "user", "content": "Go on."}]
    second = client.chat.completions.create(model="toy", messages=turns, temperature=0, max_tokens=4)
    assert second.usage is not None
    assert second.usage.prompt_tokens_details is not None
    cached = second.usage.prompt_tokens_details.cached_tokens or 0
    assert 0 < cached <= second.usage.prompt_tokens
    assert cached >= first.usage.prompt_tokens // 64 * 64


def test_choices_are_what_their_seeds_give_alone(client: openai.OpenAI) -> None:
    together = chat(client, n=3, seed=7, temperature=1.2)
    alone = [chat(client, seed=7 + number, temperature=1.2).choices[0].message.content for number in range(3)]
    assert [choice.message.content for choice in together.choices] == alone


def test_the_best_of_several_has_the_greatest_sum(client: openai.OpenAI) -> None:
    settings: Any = {
        "model": "toy",
        "prompt": "Once",
        "max_tokens": 6,
        "temperature": 1.0,
        "seed": 3,
        "logprobs": 0,
    }
    every = client.completions.create(n=5, **settings)
    sums = [sum(choice.logprobs.token_logprobs) for choice in every.choices]  # type: ignore[union-attr, arg-type]
    best = client.completions.create(n=1, best_of=5, **settings)
    assert best.choices[0].text == every.choices[sums.index(max(sums))].text


def test_a_bias_bans_and_forces_tokens(client: openai.OpenAI) -> None:
    settings: Any = {"model": "toy", "prompt": IDS, "max_tokens": 4, "temperature": 0, "logprobs": 0}
    plain = client.completions.create(**settings)
    forced = client.completions.create(logit_bias={"77": 100}, **settings)
    assert plain.choices[0].logprobs is not None
    assert forced.choices[0].logprobs is not None
    assert len(set(forced.choices[0].logprobs.tokens or [])) == 1
    assert forced.choices[0].logprobs.tokens != plain.choices[0].logprobs.tokens


@pytest.mark.parametrize("settings", [{"max_tokens": 5}, {"max_tokens": 0, "echo": True, "logprobs": 1}])
def test_an_answer_that_cannot_begin_in_time_is_a_504(client: openai.OpenAI, settings: Any) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.completions.create(model="toy", prompt=IDS, extra_body={"timeout": 1e-9}, **settings)
    assert (caught.value.status_code, caught.value.code) == (504, "timeout")


def test_tokens_can_end_an_answer(client: openai.OpenAI, toy: Engine) -> None:
    settings: Any = {"model": "toy", "prompt": IDS, "max_tokens": 12, "temperature": 0, "logprobs": 0}
    ids = list(IDS)
    for _ in range(4):
        ids.append(int(toy.logits(ids)[-1].argmax()))
    stop = {"stop_token_ids": [ids[-1]]}
    first = ids[len(IDS) :].index(ids[-1])
    [choice] = client.completions.create(extra_body=stop, **settings).choices
    assert choice.finish_reason == "stop"
    assert choice.logprobs is not None
    assert len(choice.logprobs.tokens or []) == first
    later = client.completions.create(extra_body={**stop, "min_tokens": 8}, **settings)
    assert later.usage is not None
    assert later.usage.completion_tokens >= 8


@pytest.mark.parametrize(
    "settings, error, code",
    [
        (
            {"messages": [{"role": "user", "content": "x" * 600}]},
            openai.BadRequestError,
            "context_length_exceeded",
        ),
        ({"model": "other"}, openai.NotFoundError, "model_not_found"),
        ({"functions": [{"name": "f"}]}, openai.BadRequestError, "unsupported_parameter"),
        ({"extra_body": {"mirostat": 1}}, openai.BadRequestError, "unknown_parameter"),
    ],
)
def test_mistakes_are_the_clients_exceptions(
    client: openai.OpenAI, settings: Any, error: type[openai.APIStatusError], code: str
) -> None:
    with pytest.raises(error) as caught:
        client.chat.completions.create(**{"model": "toy", "messages": HELLO, **settings})
    assert caught.value.code == code


WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "How the weather is",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def scripted(start_server: Callable[..., str]) -> Iterator[tuple[ScriptedEngine, openai.OpenAI]]:
    """An engine that answers as it is told, for a model with tools in its template, and a client of it."""
    engine = ScriptedEngine()
    url = start_server(engine, chat=ChatTemplate(QWEN, {}), context=4096)
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=30) as client:
        yield engine, client


def test_tools_make_a_round_trip(scripted: tuple[ScriptedEngine, openai.OpenAI]) -> None:
    engine, client = scripted
    engine.script = "".join(
        f'<tool_call>\n{{"name": "weather", "arguments": {{"city": "{city}"}}}}\n</tool_call>\n'
        for city in ("Oslo", "Rome")
    )
    messages: list[Any] = list(HELLO)
    answer: Any = client.chat.completions.create(model="scripted", messages=messages, tools=[WEATHER])
    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls"
    calls = choice.message.tool_calls
    assert [json.loads(call.function.arguments) for call in calls] == [{"city": "Oslo"}, {"city": "Rome"}]
    messages.append(choice.message)
    messages += [{"role": "tool", "tool_call_id": call.id, "content": "mild"} for call in calls]
    engine.script = "Both are mild"
    answer = client.chat.completions.create(model="scripted", messages=messages, tools=[WEATHER])
    assert answer.choices[0].message.content == "Both are mild"
    prompt = bytes(token for token in engine.requests[-1].prompt if token < 256).decode()
    assert prompt.count("<tool_response>\nmild\n</tool_response>") == 2
    assert '{"name": "weather", "arguments": {"city": "Rome"}}' in prompt


def test_a_stream_of_tools_is_put_together(scripted: tuple[ScriptedEngine, openai.OpenAI]) -> None:
    engine, client = scripted
    call = '{"name": "weather", "arguments": {"city": "Oslo"}}'
    engine.script = f"<think>Hm</think>Yes\n<tool_call>\n{call}\n</tool_call>"
    with client.chat.completions.stream(model="scripted", messages=HELLO, tools=[WEATHER]) as stream:
        kinds = [event.type for event in stream]
        final: Any = stream.get_final_completion()
    assert "tool_calls.function.arguments.done" in kinds
    message = final.choices[0].message
    assert (message.content, message.reasoning_content) == ("Yes\n", "Hm")
    assert [json.loads(call.function.arguments) for call in message.tool_calls] == [{"city": "Oslo"}]
    assert final.choices[0].finish_reason == "tool_calls"
