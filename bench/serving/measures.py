"""The measures: each a function from a server and what to say to it to figures, the same for both servers.

Seconds are those of the client; figures are in milliseconds, tokens a second, megabytes or shares. A client's
first text counts as its first token, and a gap is the time between two events that hold text.
"""

import asyncio
import statistics
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import chain, pairwise

from bench.serving.client import Answer, RefusedError, complete, completion, connection
from bench.serving.prompts import Prompts
from bench.serving.servers import Server, forget_peak, memory_bytes

Figures = dict[str, float]
OTHER_ADDRESS = "127.0.0.2"  # a second client, as far as a server can tell


@dataclass(frozen=True)
class Amounts:
    """How much each measure asks for: tokens, requests, seconds."""

    prompt: int = 128
    answer: int = 128
    rounds: int = 1  # requests of every stream, one after another
    system: int = 1000
    visitors: int = 50  # requests with that system prompt
    question: int = 32  # tokens of each that only it has
    history: int = 3000
    turn_words: int = 60  # of the newest message of a conversation
    long_prompt: int = 4000
    long_answer: int = 400  # of streams beside which that arrives
    undisturbed_s: float = 4.0
    patience_s: float = 60.0  # for streams that should run at the same time
    singles: int = 40
    body_bytes: int = 16 << 20
    bodies: int = 3
    questions: int = 100  # at least, so that a server which refuses at once has a 99th percentile
    crowd: int = 100
    step_budget_s: float = 0.1  # how long a step of ours may take while others wait


QUICK = Amounts(
    prompt=16,
    answer=12,
    rounds=1,
    system=128,
    visitors=4,
    question=8,
    history=192,
    turn_words=4,
    long_prompt=160,
    long_answer=60,
    undisturbed_s=0.5,
    patience_s=20,
    singles=5,
    body_bytes=1 << 18,
    bodies=1,
    questions=5,
    crowd=6,
)

Measure = Callable[[Server, Prompts, Amounts], Coroutine[None, None, Figures]]


def quantile(values: Iterable[float], share: float) -> float:
    """The value that `share` of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


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


async def interruption(server: Server, prompts: Prompts, amounts: Amounts) -> Figures:
    """Gaps of 4 streams before and while a long prompt is read, and its first token against alone."""
    alone = (await complete(server.url, prompts.tokens(amounts.long_prompt), 2)).ttft
    answers: list[Answer] = []

    async def client() -> None:
        async with connection(server.url) as one:
            while True:
                answers.append(Answer(0.0))
                body = completion(prompts.tokens(amounts.question), amounts.long_answer)
                await one.stream("/v1/completions", body, answers[-1])

    tasks = [asyncio.create_task(client()) for _ in range(4)]
    try:
        await _all_running(answers, tasks, amounts.patience_s)
        calm = time.perf_counter()
        await asyncio.sleep(amounts.undisturbed_s)
        sent = time.perf_counter()
        prompt = await complete(server.url, prompts.tokens(amounts.long_prompt), 2)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    before = [gap for answer in answers for gap in gaps_within(answer, calm, sent)]
    during = [gap for answer in answers for gap in gaps_within(answer, sent, sent + prompt.ttft)]
    undisturbed, disturbed = quantile(before, 0.99), quantile(during, 0.99)
    return {
        "undisturbed_gap_p99_ms": 1e3 * undisturbed,
        "gap_p50_ms": 1e3 * quantile(during, 0.5),
        "gap_p99_ms": 1e3 * disturbed,
        "gap_p99_over_undisturbed": disturbed / undisturbed,
        "alone_ms": 1e3 * alone,
        "ttft_ms": 1e3 * prompt.ttft,
        "ttft_over_alone": prompt.ttft / alone,
    }


async def _all_running(
    answers: Sequence[Answer], tasks: Sequence["asyncio.Task[None]"], seconds: float
) -> None:
    until = time.perf_counter() + seconds
    while sum(len(answer.arrivals) > 1 and not answer.ended for answer in answers) < len(tasks):
        for task in tasks:
            if task.done():
                task.result()
        if time.perf_counter() > until:
            raise RefusedError(f"{len(tasks)} streams did not run at the same time within {seconds:g} s")
        await asyncio.sleep(0.01)


def gaps_within(answer: Answer, start: float, end: float) -> list[float]:
    """Gaps of an answer that end within (start, end], and the one that is open at the end if it is longer
    than those: a stream that stands still would else have none."""
    gaps = [b - a for a, b in pairwise(answer.arrivals) if start < b <= end]
    if answer.ended and answer.ended <= end:
        return gaps
    still = end - max((moment for moment in answer.arrivals if moment <= end), default=end)
    return [*gaps, still] if still > max(gaps, default=0.0) else gaps


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


async def large_bodies(server: Server, prompts: Prompts, amounts: Amounts) -> Figures:
    """`/health` every 20 ms while bodies arrive that no context has room for; memory beyond that before."""
    text = prompts.text(len(prompts.words) // 2) + " "
    prompt = text * (amounts.body_bytes // len(text.encode()) + 1)
    await complete(server.url, prompts.tokens(amounts.prompt), amounts.answer)
    forget_peak(server.pid)
    before = memory_bytes(server.pid)
    statuses: list[int] = []

    async def send() -> None:
        for _ in range(amounts.bodies):
            async with connection(server.url) as one:
                try:
                    body = completion(prompt, 1)
                    statuses.append((await one.request("POST", "/v1/completions", body))[0])
                except (OSError, asyncio.IncompleteReadError):
                    statuses.append(0)  # refused before all of it was read

    # Of its own loop and thread, so that writing 16 MiB does not delay the questions.
    sender = threading.Thread(target=lambda: asyncio.run(send()))
    sender.start()
    waited: list[float] = []
    async with connection(server.url) as one:
        while sender.is_alive() or len(waited) < amounts.questions:
            begun = time.perf_counter()
            await one.request("GET", "/health")
            waited.append(time.perf_counter() - begun)
            await asyncio.sleep(0.02)
    sender.join()
    if 200 in statuses:
        raise RefusedError("a prompt beyond the context was answered")
    return {
        "health_p50_ms": 1e3 * quantile(waited, 0.5),
        "health_p99_ms": 1e3 * quantile(waited, 0.99),
        "longest_ms": 1e3 * max(waited),
        "memory_mb": (memory_bytes(server.pid, "VmHWM") - before) / 1e6,
    }


async def crowd(server: Server, prompts: Prompts, amounts: Amounts) -> Figures:
    """The first token of one client while another has a hundred requests in the server, against alone."""

    async def ask() -> Answer:
        return await complete(server.url, prompts.tokens(amounts.prompt), 8, OTHER_ADDRESS)

    alone = [await ask() for _ in range(3)]
    async with AsyncExitStack() as stack:
        tasks = []
        for _ in range(amounts.crowd):
            one = await stack.enter_async_context(connection(server.url))
            body = completion(prompts.tokens(amounts.prompt), amounts.answer)
            tasks.append(asyncio.create_task(one.stream("/v1/completions", body)))
        await asyncio.sleep(1.0)
        refused = [task for task in tasks if task.done() and task.exception() is not None]
        try:
            beside = await asyncio.wait_for(ask(), 3 * amounts.patience_s)
        except asyncio.TimeoutError:
            raise RefusedError(f"no token within {3 * amounts.patience_s:g} s") from None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    if refused:
        raise RefusedError(
            f"{len(refused)} of {amounts.crowd} requests were refused: {refused[0].exception()}"
        )
    middle = statistics.median(answer.ttft for answer in alone)
    return {
        "alone_ms": 1e3 * middle,
        "beside_ms": 1e3 * beside.ttft,
        "beside_less_a_step_over_alone": max(beside.ttft - amounts.step_budget_s, 0.0) / middle,
    }


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}
