"""Minutes of everything at once against `rockledge serve`: no wrong or lost answer, and nothing left behind.

The cache has room for a few requests only, so that some are pushed out by others and read again. Every answer
that arrives is compared, log probabilities included, with that of the same request alone on a server of its
own. `--soak-minutes 30` is the long form.
"""

import asyncio
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.serve.soak_clients import Client, alone
from tests.serve.soak_requests import requests

from rockledge.synth import synth_artifact

CLIENTS = 12
CONTEXT = 512  # tokens of a sequence at most, and of all that are in the cache
REQUESTS = 150
WARM_UP_SECONDS = 10.0  # until threads and buffers are there that later traffic uses again


@contextmanager
def server(artifact: Path, *options: object) -> Iterator[tuple[str, int]]:
    """Base URL and process id of a server of its own."""
    command = [sys.executable, "-m", "rockledge", "serve", str(artifact), "--json", "--npu", "off"]
    flags = ["--port", "0", "--threads", "2", "--ctx", str(CONTEXT), *map(str, options)]
    with subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"], process.pid
            assert process.poll() is None
        finally:
            process.terminate()


@dataclass(frozen=True)
class Standing:
    """What an idle server holds, and how often a request has had to give up its pages."""

    threads: int
    descriptors: int
    held_pages: int
    preemptions: int


def standing(url: str, pid: int) -> Standing:
    """Of the server now."""
    metrics = httpx.get(f"{url}/metrics", timeout=30).text
    metric = {
        name: int(value) for name, value in re.findall(r"^rockledge_(\w+) (\d+)\.0$", metrics, re.MULTILINE)
    }
    status = Path(f"/proc/{pid}/status").read_text()
    return Standing(
        threads=int(re.findall(r"^Threads:\s+(\d+)", status, re.MULTILINE)[0]),
        descriptors=len(os.listdir(f"/proc/{pid}/fd")),
        held_pages=metric["cache_pages"] - metric["cache_pages_free"],
        preemptions=metric["preemptions_total"],
    )


def settled(url: str, pid: int) -> Standing:
    """Of the server once nothing is running and what it holds has not changed for a second."""
    for _ in range(60):
        before = standing(url, pid)
        time.sleep(1)
        requests_now = httpx.get(f"{url}/health", timeout=30).json()["requests"]
        if standing(url, pid) == before and requests_now == 0:
            return before
    raise AssertionError(f"the server does not become idle: {standing(url, pid)}")


def resident_kb(pid: int) -> int:
    """Memory of the server now."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"^VmRSS:\s+(\d+)", status, re.MULTILINE)[0])


async def traffic(url: str, pid: int, seconds: float, clients: list[Client]) -> list[int]:
    """All clients for so long; the server's memory by time."""
    until = time.monotonic() + seconds
    running = asyncio.gather(*(client.run(until) for client in clients))
    memory = []
    while not running.done():
        memory.append(resident_kb(pid))
        await asyncio.wait([running], timeout=0.2)
    await running
    return memory


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_nothing_is_wrong_lost_or_left_behind(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    seconds = 60 * float(request.config.getoption("--soak-minutes"))
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # shown when the test fails
    chance = random.Random(seed)
    artifact = synth_artifact("toy", tmp_path / "toy", seed=3)
    asked = requests(chance, REQUESTS)
    with server(artifact) as (url, _):
        expected = asyncio.run(alone(url, asked))
    with server(artifact, "--prefix-dir", tmp_path / "prefixes", "--prefix-bytes", "2M") as (url, pid):
        clients = [Client(url, asked, expected, random.Random(chance.random())) for _ in range(CLIENTS)]
        asyncio.run(traffic(url, pid, WARM_UP_SECONDS, clients))
        idle = settled(url, pid)
        memory = asyncio.run(traffic(url, pid, seconds, clients))
        after = settled(url, pid)
    counts = sum((client.counts.of for client in clients), Counter[str]())
    wrong = [line for client in clients for line in client.counts.wrong]
    print(dict(counts), f"{memory[0]} to {memory[-1]} kB")
    assert not wrong, f"{len(wrong)} of {counts['answers']} answers: {wrong[:5]}"
    assert counts["answers"] > seconds
    assert (after.threads, after.held_pages) == (idle.threads, 0)
    assert after.descriptors <= idle.descriptors  # the check of the artifact has closed its own meanwhile
    assert after.preemptions > idle.preemptions
    second_half = memory[len(memory) // 2 :]
    tenth = max(1, len(second_half) // 10)
    grown = statistics.median(second_half[-tenth:]) / statistics.median(second_half[:tenth])
    assert grown <= 1.02, f"memory is {grown:.3f} times what it was at half time"
