"""The measures of what clients notice of others: a long prompt, large bodies, a crowd."""

import asyncio
import statistics
import threading
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import pairwise

from bench.serving.amounts import Amounts, Figures, quantile
from bench.serving.client import Answer, RefusedError, complete, completion, connection
from bench.serving.prompts import Prompts
from bench.serving.servers import Server, forget_peak, memory_bytes

OTHER_ADDRESS = "127.0.0.2"  # a second client, as far as a server can tell


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
