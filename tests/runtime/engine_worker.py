"""Engines on a virtual NPU, in a process of its own: reads orders from stdin, a JSON object a line.

As `npu_worker`, for whole engines. Whatever an engine answers is compared here with one that leaves the NPU
alone, bit for bit.
"""

import gc
import json
import logging
import os
import sys

import numpy as np
from tests.runtime.npu_worker import held

from rockledge.errors import RockledgeError
from rockledge.npu.virtual_npu import ADDRESS_VARIABLE
from rockledge.runtime.engine import Engine
from rockledge.runtime.request import Request


class Lines(logging.Handler):
    """What an engine says."""

    def __init__(self):
        super().__init__(logging.INFO)
        self.lines = []

    def emit(self, record):
        self.lines.append([record.levelname, record.getMessage()])


def prompts_of(lengths, vocab):
    random = np.random.default_rng(len(lengths))
    return [random.integers(0, vocab, length).tolist() for length in lengths]


def ask(path, lengths=(), chunk=None, tokens=0, again=1, **settings):
    """Logits of prompts of these lengths, `again` times over, and an answer of `tokens` to each of them.

    `settings` are those of `Engine.load`. Says which logits and answers were those of the CPU, how the NPU
    stood after each prompt, what was logged, and what is left open at the end.
    """
    said = Lines()
    logger = logging.getLogger("rockledge")
    logger.setLevel(logging.INFO)
    expected = alone(path, lengths, tokens, settings.get("ctx"))
    gc.collect()
    before = held()
    logger.addHandler(said)
    told = compare(path, expected, chunk, tokens, again, settings)
    logger.removeHandler(said)
    gc.collect()
    return {**told, "said": said.lines, "held": [before, held()]}


def alone(path, lengths, tokens, ctx):
    """(prompt, logits, answer) of every length, from the CPU."""
    with Engine.load(path, threads=1, ctx=ctx, npu="off") as engine:
        prompts = prompts_of(lengths, engine.config.vocab)
        return [(prompt, engine.logits(prompt), answer(engine, prompt, tokens)) for prompt in prompts]


def compare(path, expected, chunk, tokens, again, settings):
    told = {"error": None, "same": [], "answered": [], "states": []}
    try:
        with Engine.load(path, threads=2, **settings) as engine:
            for prompt, logits, text in expected * again:
                told["same"].append(bool((engine.logits(prompt, chunk=chunk) == logits).all()))
                told["answered"].append(answer(engine, prompt, tokens) == text)
                told["states"].append(engine.npu.state)
            told["native_bytes"] = engine.native_bytes
            told["planned_bytes"] = engine.footprint.bytes - engine.artifact.tensor_bytes
            told["step_tokens"] = engine.footprint.step_tokens
            assert engine.free_pages == engine.pages
        told["npu"] = engine.npu.body()  # how it stood when it was closed
    except RockledgeError as error:
        told["error"] = [type(error).__name__, str(error)]
    return told


def answer(engine, prompt, tokens):
    pieces = engine.generate(prompt, max_tokens=tokens, ignore_eos=True) if tokens else ()
    return [token for piece in pieces for token in piece.ids]


def overlap(path, length, tokens, **settings):
    """An answer of `tokens` after a short prompt is written while a long prompt is read: which of its tokens
    came meanwhile, and whether both answers were as they are alone."""
    (short, _, text), (long, _, other) = alone(path, (5, length), tokens, settings["ctx"])
    written, read, times = [], [], []
    with Engine.load(path, threads=1, **settings) as engine:
        engine.submit(Request("short", tuple(short), max_tokens=tokens, ignore_eos=True, logprobs=0))
        while not written:
            written += ids_of(engine.step(), "short")
        engine.submit(Request("long", tuple(long), max_tokens=tokens, ignore_eos=True))
        while not engine.idle:
            outputs = engine.step()
            read += ids_of(outputs, "long")
            came = ids_of(outputs, "short")
            written += came
            times += [engine.stats().decoding == 1 and engine.stats().running == 2] * len(came)
        npu = engine.npu.body()
    return {"text": written == text, "other": read == other, "meanwhile": times, "npu": npu}


def ids_of(outputs, request):
    pieces = [output.piece for output in outputs if output.request == request and output.piece is not None]
    return [token for piece in pieces for token in piece.ids]


def batch(path, lengths, tokens, **settings):
    """Answers to prompts of these lengths, all at once: whether each is that of the CPU alone."""
    right = [text for _, _, text in alone(path, lengths, tokens, settings["ctx"])]
    found = [[] for _ in lengths]
    with Engine.load(path, threads=2, **settings) as engine:
        for number, prompt in enumerate(prompts_of(lengths, engine.config.vocab)):
            engine.submit(Request(str(number), tuple(prompt), max_tokens=tokens, ignore_eos=True))
        while not engine.idle:
            outputs = engine.step()
            for number, ids in enumerate(found):
                ids += ids_of(outputs, str(number))
        assert engine.free_pages == engine.pages
        npu = engine.npu.body()
    return {"same": found == right, "npu": npu}


def handed_over(path, length, **settings):
    """Cache maintenance of a prompt's step whose weights stay unpacked: (calls, bytes to the device, bytes
    from it) as the device counted them, and as the time formula has them, block by block."""
    with Engine.load(path, threads=2, **settings) as engine:
        use = engine._npu  # no user needs to see these
        prompt = prompts_of([length], engine.config.vocab)[0]
        engine.logits(prompt)
        before = use.device.describe()
        engine.logits(prompt)
        after = use.device.describe()
        assert use.status().steps == 2
        found = [
            getattr(after, name) - getattr(before, name)
            for name in ("syncs", "cleaned_bytes", "invalidated_bytes")
        ]
        plan, modelled = use.plan, {"input": [0, 0], "between": [0, 0], "words": [0, 0], "outputs": [0, 0]}
        blocks = 0
        for count, cut in plan.times.cuts(length):
            blocks += count * cut.blocks
            for name, total in modelled.items():
                sync = getattr(cut.syncs, name).times(count * (1 if name == "input" else cut.blocks))
                total[0] += sync.calls
                total[1] += sync.bytes
        return {"found": found, "modelled": modelled, "blocks": blocks, "lanes": plan.lanes}


def forked(path, length, child, **settings):
    """Logits before and after a fork whose child uses or closes the engine: which were right, by both."""
    [(prompt, logits, _)] = alone(path, (length,), 0, settings["ctx"])
    with Engine.load(path, threads=2, **settings) as engine:

        def right():
            return bool((engine.logits(prompt) == logits).all())

        before = right()
        process = os.fork()
        if process == 0:
            good = right() and engine.npu.state == "failed" if child == "uses" else engine.close() is None
            os._exit(0 if good else 1)
        _, ended = os.waitpid(process, 0)
        return {
            "same": [before, right()],
            "child": os.waitstatus_to_exitcode(ended),
            "npu": engine.npu.body(),
        }


ORDERS = {"ask": ask, "overlap": overlap, "batch": batch, "handed_over": handed_over, "forked": forked}


def main():
    for line in sys.stdin:
        order = json.loads(line)
        os.environ[ADDRESS_VARIABLE] = order.pop("address")
        does = ORDERS[order.pop("order")]
        print(json.dumps(does(**order)), flush=True)


if __name__ == "__main__":
    main()
