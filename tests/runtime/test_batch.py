"""Sequences in lockstep: each is what it would be alone, and they can be taken back to their prompts."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.runtime.artifacts import BOS

from rockledge.errors import ContextError, UsageError
from rockledge.runtime.engine import Engine
from rockledge.runtime.kv_cache import CacheFullError
from rockledge.runtime.sampling import Sampling

PROMPTS = [[BOS, 10, 200, 33, 44], [BOS, 5], [7] * 40]


def alone(engine: Engine, prompt: list[int], tokens: int) -> list[int]:
    pieces = engine.generate(prompt, max_tokens=tokens, ignore_eos=True)
    return [token for piece in pieces for token in piece.ids]


@pytest.mark.parametrize("threads", [1, 3])
def test_every_sequence_is_as_if_it_were_alone(artifact_path: Callable[[str], Path], threads: int) -> None:
    with Engine.load(artifact_path("rotated-tied"), threads=threads, ctx=200) as engine:
        with engine.batch(PROMPTS) as batch:
            steps = np.array([batch.step() for _ in range(20)])
            assert batch.lengths == (25, 22, 60)
            logits = batch.logits.copy()
        for number, prompt in enumerate(PROMPTS):
            tokens = alone(engine, prompt, 20)
            assert steps[:, number].tolist() == tokens
            assert np.array_equal(engine.logits(prompt + tokens)[-1], logits[number])
        assert engine.free_pages == engine.pages


def test_a_batch_goes_back_to_its_prompts(engine: Engine) -> None:
    warm = Sampling(temperature=1.0, seed=3)
    with engine.batch(PROMPTS, sampling=warm) as batch:
        first, held = [batch.step() for _ in range(5)], batch.logits.copy()
        batch.rewind()
        assert batch.lengths == (5, 2, 40)
        again = [batch.step() for _ in range(5)]
        assert np.array_equal(first, again)
        assert np.array_equal(batch.logits, held)
    with engine.batch([PROMPTS[0]] * 2, sampling=warm) as batch:  # each sequence draws for itself
        assert len({tuple(int(step[i]) for step in [batch.step() for _ in range(8)]) for i in (0, 1)}) == 2


def test_a_long_past_is_made_of_copies(engine: Engine) -> None:
    with engine.batch([[7] * 40, [BOS, 5]]) as batch:
        batch.lengthen(90)
        assert batch.lengths == (90, 90)
        steps = [batch.step() for _ in range(3)]
        batch.rewind()
        assert batch.lengths == (90, 90)
        assert np.array_equal(steps, [batch.step() for _ in range(3)])
        batch.lengthen(10)  # shorter than they are
        assert batch.lengths == (93, 93)


def test_what_a_batch_refuses(engine: Engine) -> None:
    with pytest.raises(UsageError, match="batch of 0"):
        engine.batch([])
    with pytest.raises(UsageError, match="no tokens"):
        engine.batch([PROMPTS[0], []])
    with pytest.raises(CacheFullError):
        engine.batch([[7] * 120, [7] * 120])
    assert engine.free_pages == engine.pages
    with engine.batch([[7] * engine.context]) as batch, pytest.raises(ContextError, match="larger"):
        batch.step()
