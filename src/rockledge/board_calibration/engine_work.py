"""What a step costs besides the core's operations: engines over random models of a single layer.

That layer is as wide as it takes to drive the engine's own data out of a core's cache, as real models do.
"""

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from rockledge.board.memory import PAGE_TOKENS
from rockledge.model.config import ModelConfig
from rockledge.runtime.engine import Engine
from rockledge.runtime.speed import answering, cache_tokens
from rockledge.synth import SHAPES, synth_artifact

_STEPS: Final = 16


def _shape(vocab: int) -> ModelConfig:
    return replace(SHAPES["135m"], hidden=512, layers=1, heads=8, kv_heads=2, ffn=8192, vocab=vocab)


@contextmanager
def engine_steps(threads: int, most: int, vocab: int) -> Iterator[Callable[[int], float]]:
    """A function that gives the seconds of a step with so many sequences, up to `most`, without those of the
    core's operations; every sequence draws from `vocab` logits."""
    with tempfile.TemporaryDirectory() as folder:
        artifact = synth_artifact(_shape(vocab), Path(folder) / "model", bits=4)
        room = cache_tokens(1, _STEPS + 4, most, PAGE_TOKENS)
        options: dict[str, Any] = {"prefixes": False, "parallel": most, "step_s": 3600.0}
        with _quietly():
            engine = Engine.load(artifact, threads=threads, ctx=room, npu="off", **options)
        with engine:
            _, core = engine.time_operations()

            def seconds(sequences: int) -> float:
                with answering(engine, sequences, 1, _STEPS + 2):
                    engine.step()
                    core[:] = 0
                    begun = time.perf_counter()
                    for _ in range(_STEPS):
                        engine.step()
                    whole = time.perf_counter() - begun
                return max(whole - float(core.sum()) / 1e9, 0.0) / _STEPS

            yield seconds


@contextmanager
def _quietly() -> Iterator[None]:
    """What an engine says of its model is nothing to tell of this one."""
    log = logging.getLogger("rockledge.runtime")
    before = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(before)
