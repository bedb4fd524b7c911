"""Requests to an engine whose NPU misbehaves, in a process of its own, which takes orders as `npu_worker`.

A request is a prompt of so many random tokens: with `tokens` an answer of that many, else the logits of the
whole prompt. Each is compared with what the CPU says alone, bit for bit.
"""

import gc
import json
import os
import sys
import threading
import time
from functools import cache
from pathlib import Path

import numpy as np
from tests.runtime.npu_worker import held

from rockledge.errors import RockledgeError
from rockledge.npu.virtual_npu import ADDRESS_VARIABLE
from rockledge.runtime.engine import Engine
from rockledge.runtime.offload import opening, use


def requests(path, requests, at_once, timeout_ms, **settings):
    """What became of each request: "right", "wrong" or an error; of all when none could be asked.

    `at_once`: from as many threads, one behind the other otherwise. `timeout_ms`: what a job may take.
    `settings` are those of `Engine.load`.
    """
    expected = [alone(path, settings["ctx"], *one) for one in requests]
    opening.PROBE_MS = use.JOB_MS = timeout_ms
    gc.collect()
    before = holds()
    told = asked(path, requests, expected, at_once, settings)
    gc.collect()
    return {**told, "held": [before, holds()]}


def asked(path, requests, expected, at_once, settings):
    outcomes = [None] * len(requests)
    try:
        with Engine.load(path, threads=2, **settings) as engine:

            def ask(number):
                outcomes[number] = outcome(engine, *requests[number], expected[number])

            threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(requests))]
            for thread in threads:
                thread.start()
                if not at_once:
                    thread.join()
            for thread in threads:
                thread.join()
            assert engine.free_pages == engine.pages
        return {"outcomes": outcomes, "error": None, "npu": engine.npu.body()}
    except RockledgeError as error:
        return {"outcomes": outcomes, "error": [type(error).__name__, str(error)], "npu": None}


def outcome(engine, length, tokens, expected):
    try:
        return "right" if np.array_equal(said(engine, length, tokens), expected) else "wrong"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@cache
def alone(path, ctx, length, tokens):
    """What a CPU says to a request."""
    with Engine.load(path, threads=1, ctx=ctx, npu="off") as engine:
        return said(engine, length, tokens)


def said(engine, length, tokens):
    prompt = np.random.default_rng(length).integers(0, engine.config.vocab, length).tolist()
    if not tokens:
        return engine.logits(prompt)
    pieces = engine.generate(prompt, max_tokens=tokens, ignore_eos=True)
    return [token for piece in pieces for token in piece.ids]


def holds():
    """Open files, mapped device memory, and threads."""
    return [*held(), threads()]


def threads():
    """Threads of this process; one that was joined may take the system a moment to end."""
    for _ in range(100):
        count = sum(1 for _ in Path("/proc/self/task").iterdir())
        if count == 1:
            break
        time.sleep(0.02)
    return count


def main():
    for line in sys.stdin:
        order = json.loads(line)
        os.environ[ADDRESS_VARIABLE] = order.pop("address")
        assert order.pop("order") == "requests"
        print(json.dumps(requests(**order)), flush=True)


if __name__ == "__main__":
    main()
