"""The measures of what clients wait for: each a function from a server and what to say to it to figures.

They are the same for both servers. Seconds are those of the client; figures are in milliseconds, tokens a
second, megabytes or shares. A client's first text counts as its first token, and a gap is the time between
two events that hold text.
"""

import asyncio
import statistics
import time
from collections.abc import Sequence
from itertools import chain

from bench.serving.amounts import Amounts, Figures, quantile
from bench.serving.client import Answer, RefusedError, complete, completion, connection
from bench.serving.prompts import Prompts
from bench.serving.servers import Server


async def streams(server: Server, prompts: Prompts, amounts: Amounts, count: int) -> Figures:
    """`count` clients at once, each with `rounds` different prompts one after another."""
    asked = [[prompts.tokens(amounts.prompt) for _ in range(amounts.rounds)] for _ in range(count)]

    async def client(own: Sequence[Sequence[int]]) -> list[Answer]:
        async with connection(server.url) as one:
            bodies = [completion(prompt, amounts.answer) for prompt in own]
            return [await one.stream("/v1/completions", body) for body in bodies]

    begun = time.perf_counter()
    answers = list(chain.from_iterable(await asyncio.gather(*map(client, asked))))
    seconds = time.perf_counter() - begun
    tokens = [answer.usage["completion_tokens"] for answer in answers]
    if set(tokens) != {amounts.answer}:
        raise RefusedError(f"answers have {sorted(set(tokens))} tokens, expected {amounts.answer} each")
    first = [answer.ttft for answer in answers]
    gaps = [gap for answer in answers for gap in answer.gaps]
    return {
        "tok_s": sum(tokens) / seconds,
        "ttft_p50_ms": 1e3 * quantile(first, 0.5),
        "ttft_p99_ms": 1e3 * quantile(first, 0.99),
        "gap_p50_ms": 1e3 * quantile(gaps, 0.5),
        "gap_p99_ms": 1e3 * quantile(gaps, 0.99),
    }


# None can end within an answer. Strings are all choice; where their length has bounds, every character is
# another state of the grammar, which costs the most. Records have many tokens that are forced.
FORMS: dict[str, dict[str, object]] = {
    "strings": {"type": "array", "items": {"type": "string"}, "minItems": 1000},
    "bounded": {
        "type": "object",
        "properties": {"text": {"type": "string", "minLength": 4000, "maxLength": 9000}},
        "required": ["text"],
    },
    "records": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "maxLength": 24},
                "age": {"type": "integer", "minimum": 0, "maximum": 150},
                "kind": {"enum": ["animal", "person", "thing"]},
                "present": {"type": "boolean"},
            },
            "required": ["name", "age", "kind", "present"],
            "additionalProperties": False,
        },
        "minItems": 200,
        "maxItems": 400,
    },
}


async def constrained(server: Server, prompts: Prompts, amounts: Amounts, count: int) -> Figures:
    """Tokens a second that `count` clients at once get after their first, of free answers and of answers of a
    given form, in alternating runs."""
    bodies: dict[str, dict[str, object]] = {"free": {}}
    bodies |= {name: {"json_schema": form} for name, form in FORMS.items()}

    async def client(prompt: Sequence[int], form: dict[str, object]) -> float:
        async with connection(server.url) as one:
            answer = await one.stream("/v1/completions", {**completion(prompt, amounts.answer), **form})
        if answer.usage["completion_tokens"] != amounts.answer:
            raise RefusedError(f"an answer has {answer.usage['completion_tokens']} tokens")
        return float((amounts.answer - 1) / (answer.ended - answer.ttft - answer.sent))

    for form in bodies.values():  # what is made once for all grammars
        await client(prompts.tokens(amounts.question), form)
    rates: dict[str, list[float]] = {name: [] for name in bodies}
    for _ in range(amounts.alternations):
        for name, form in bodies.items():
            asked = [prompts.tokens(amounts.question) for _ in range(count)]
            rates[name].append(sum(await asyncio.gather(*(client(prompt, form) for prompt in asked))))
    middle = {name: statistics.median(found) for name, found in rates.items()}
    return {
        **{f"{name}_tok_s": rate for name, rate in middle.items()},
        **{f"{name}_over_free": middle[name] / middle["free"] for name in FORMS},
    }


async def shared_prefix(server: Server, prompts: Prompts, amounts: Amounts) -> Figures:
    """Requests that begin with the same system prompt, one after another."""
    system = prompts.tokens(amounts.system)
    first, *later = [
        (await complete(server.url, system + prompts.tokens(amounts.question), 4)).ttft
        for _ in range(amounts.visitors)
    ]
    middle = statistics.median(later)
    return {
        "first_ms": 1e3 * first,
        "later_p50_ms": 1e3 * middle,
        "later_p99_ms": 1e3 * quantile(later, 0.99),
        "later_over_first": middle / first,
    }


async def conversation(server: Server, prompts: Prompts, amounts: Amounts) -> Figures:
    """Five turns whose last has `history` tokens before it, then a message as long as its new text alone.

    The first message makes up most of the history, because turns add about 100 tokens each.
    """
    async with connection(server.url) as one:

        async def say(messages: list[dict[str, str]]) -> Answer:
            body: dict[str, object] = {"messages": messages, "max_tokens": 24, "temperature": 0}
            return await one.stream("/v1/chat/completions", body)

        length = (await say([_user(prompts.text(amounts.turn_words))])).usage["prompt_tokens"]
        tokens_a_word = len(prompts.ids) / len(prompts.words)
        words = max(amounts.turn_words, int((amounts.history - 4 * length) / tokens_a_word))
        messages = [_user(prompts.text(words))]
        turns: list[Answer] = []
        for turn in range(5):
            if turn:
                messages.append(_user(prompts.text(amounts.turn_words)))
            turns.append(await say(messages))
            messages.append({"role": "assistant", "content": turns[-1].text})
        fresh = [await say([_user(prompts.text(amounts.turn_words))]) for _ in range(5)]
    before, last = turns[-2].usage, turns[-1].usage
    history = before["prompt_tokens"] + before["completion_tokens"]
    alone = statistics.median(answer.ttft for answer in fresh)
    return {
        "history_tokens": float(history),
        "new_tokens": float(last["prompt_tokens"] - history),
        "turn_5_read_tokens": float(turns[-1].read_tokens),
        "fresh_read_tokens": statistics.median(float(answer.read_tokens) for answer in fresh),
        "turn_1_ms": 1e3 * turns[0].ttft,
        "turn_5_ms": 1e3 * turns[-1].ttft,
        "fresh_ms": 1e3 * alone,
        "turn_5_over_fresh": turns[-1].ttft / alone,
    }


async def longer_prompts(server: Server, prompts: Prompts, amounts: Amounts) -> Figures:
    """A conversation in token ids, for models that only babble: the fifth of five prompts, each the one
    before and `question` ids more, against a fresh prompt of so many ids."""
    prompt = prompts.tokens(amounts.history - 4 * amounts.question)
    turns = [await complete(server.url, prompt, 2)]
    for _ in range(4):
        prompt = prompt + prompts.tokens(amounts.question)
        turns.append(await complete(server.url, prompt, 2))
    fresh = [await complete(server.url, prompts.tokens(amounts.question), 2) for _ in range(5)]
    alone = statistics.median(answer.ttft for answer in fresh)
    return {
        "turn_1_ms": 1e3 * turns[0].ttft,
        "turn_5_ms": 1e3 * turns[-1].ttft,
        "fresh_ms": 1e3 * alone,
        "turn_5_over_fresh": turns[-1].ttft / alone,
    }


async def single_tokens(server: Server, prompts: Prompts, amounts: Amounts) -> Figures:
    """One-token completions of one-token prompts over one connection.

    The model's own time for one is that of a token in a stream: the middle gap of an answer.
    """
    async with connection(server.url) as one:
        body = completion(prompts.tokens(1), 4 * amounts.answer)
        model = statistics.median((await one.stream("/v1/completions", body)).gaps)
        whole = []
        for _ in range(amounts.singles):
            begun = time.perf_counter()
            await one.json("/v1/completions", completion(prompts.tokens(1), 1))
            whole.append(time.perf_counter() - begun)
    middle = statistics.median(whole)
    return {
        "model_ms": 1e3 * model,
        "request_p50_ms": 1e3 * middle,
        "request_p99_ms": 1e3 * quantile(whole, 0.99),
        "beyond_model_ms": 1e3 * (middle - model),
    }


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}
