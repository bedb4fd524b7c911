"""Models without a language head: states against plain NumPy, embeddings of texts, and what they refuse."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.native.one_op import supported_kernels
from tests.runtime.artifacts import BOS, VARIANTS, VOCAB, write_artifact
from tests.runtime.reference_numpy import reference_states

from rockledge.errors import ContextError, UsageError
from rockledge.runtime.engine import Engine
from rockledge.runtime.model import Model
from rockledge.runtime.request import Request

TOKENS = np.random.default_rng(0).integers(0, VOCAB, 150).tolist()


def headless(path: Path, variant: str, pooling: str = "last") -> Path:
    before = VARIANTS[variant]
    more = {**before.more, "headless": True, "pooling": pooling}
    return write_artifact(path, replace(before, tied=True, more=more))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return headless(tmp_path_factory.mktemp("embed") / "embedder", "rotated-tied")


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    with Engine.load(path, threads=2, ctx=160) as loaded:
        yield loaded
        assert loaded.free_pages == loaded.pages


@pytest.mark.parametrize("variant", ["plain", "rotated-tied", "qk-norm", "norms-around"])
def test_states_are_those_of_the_reference(variant: str, tmp_path: Path) -> None:
    """Equal up to fp32 rounding, but where that moved an activation to the next int8 step."""
    with Engine.load(headless(tmp_path / "model", variant), threads=1, ctx=64) as engine:
        prompts = np.random.default_rng(3).integers(0, VOCAB, (30, 4)).tolist()
        worst = [np.abs(engine.states(p) - reference_states(engine.artifact, p)).max() for p in prompts]
    assert np.median(worst) < 1e-5
    assert max(worst) < 0.3


def test_an_embedding_is_the_last_state_at_length_one(engine: Engine) -> None:
    last = engine.states(TOKENS)[-1]
    found = engine.embed(TOKENS)
    assert (found.dtype, found.shape) == (np.float32, (engine.config.hidden,))
    np.testing.assert_allclose(found, last / np.linalg.norm(last.astype(np.float64)), rtol=1e-6)
    cut = engine.embed(TOKENS, dimensions=32)
    np.testing.assert_allclose(cut, last[:32] / np.linalg.norm(last[:32].astype(np.float64)), rtol=1e-6)


def test_a_mean_is_of_the_states_after_all_tokens(tmp_path: Path) -> None:
    with Engine.load(headless(tmp_path / "mean", "rotated-tied", "mean"), threads=2, ctx=160) as engine:
        found = engine.embed(TOKENS)
        assert engine.embed(TOKENS).tobytes() == found.tobytes()  # not out of the cache
        mean = engine.states(TOKENS).mean(axis=0, dtype=np.float64)
        np.testing.assert_allclose(found, mean / np.linalg.norm(mean), rtol=1e-5, atol=1e-7)
        assert engine.stats().cached_tokens == 0


def test_the_bits_of_a_mean_do_not_depend_on_the_steps(tmp_path: Path) -> None:
    path = headless(tmp_path / "mean", "rotated-tied", "mean")
    found = set()
    for parallel, others in ((1, 0), (8, 7), (3, 5)):
        with Engine.load(path, threads=1, ctx=400, parallel=parallel) as engine:
            for number in range(others):
                engine.submit(Request(f"other {number}", tuple(TOKENS[number:]), kind="embed"))
            engine.submit(Request("mine", tuple(TOKENS), kind="embed"))
            outputs = [output for _ in range(200) if not engine.idle for output in engine.step()]
        found |= {output.embedding for output in outputs if output.request == "mine"}
        assert len(outputs) == others + 1
    assert len(found) == 1


def test_a_mean_begins_anew_where_its_pages_were_taken(tmp_path: Path) -> None:
    tokens = TOKENS * 5
    path = headless(tmp_path / "mean", "rotated-tied", "mean")
    with Engine.load(path, threads=1, ctx=800, parallel=2) as engine:
        engine.submit(Request("low", tuple(tokens), kind="embed"))
        assert engine.step() == []
        engine.submit(Request("high", tuple(tokens[1:]), kind="embed", priority=1))
        outputs = [output for _ in range(400) if not engine.idle for output in engine.step()]
        assert engine.stats().preemptions == 1
        (low,) = [output.embedding for output in outputs if output.request == "low"]
        engine.submit(Request("alone", tuple(tokens), kind="embed"))
        outputs = [output for _ in range(400) if not engine.idle for output in engine.step()]
    assert low == outputs[0].embedding


def test_chunks_threads_and_kernels_change_no_bit(path: Path) -> None:
    found = set()
    for kernel in supported_kernels():
        for threads in (1, 2):
            with Engine.load(path, threads=threads, ctx=160, kernel=kernel) as engine:
                found |= {engine.states(TOKENS, chunk=chunk).tobytes() for chunk in (None, 7)}
    assert len(found) == 1


def test_texts_of_a_list_are_rows(engine: Engine) -> None:
    model = Model(engine)
    both = model.embed(["some words", "others"], dimensions=8)
    assert np.array_equal(both[0], model.embed("some words", dimensions=8))
    assert np.array_equal(both[1], engine.embed(engine.tokenizer.encode_whole("others"), dimensions=8))
    assert model.embed([]).shape == (0, engine.config.hidden)


@pytest.mark.parametrize(
    "ask",
    [
        lambda engine: engine.generate([BOS], max_tokens=1),
        lambda engine: engine.score([BOS, 5]),
        lambda engine: engine.logits([BOS]),
        lambda engine: engine.submit(Request("r", (BOS,))),
        lambda engine: Model(engine).generate([{"role": "user", "content": "hi"}]),
    ],
)
def test_what_needs_a_head_is_refused(ask: Callable[[Engine], Any], engine: Engine) -> None:
    with pytest.raises(UsageError, match="embedder has no language head: it can neither generate nor score"):
        ask(engine)


def test_embeddings_that_cannot_be(engine: Engine, path: Path, tmp_path: Path) -> None:
    for dimensions in (0, engine.config.hidden + 1):
        with pytest.raises(UsageError, match=f"embedding of {dimensions} dimensions, expected 1 to"):
            engine.embed(TOKENS, dimensions=dimensions)
    with pytest.raises(UsageError, match="no tokens"):
        engine.embed([])
    with pytest.raises(ContextError, match="expected at most 160"):
        engine.embed([BOS] * 161)
    causal = write_artifact(tmp_path / "causal", VARIANTS["rotated-tied"])
    with Engine.load(causal, threads=1, ctx=16) as other:
        for ask in (other.embed, other.states):
            with pytest.raises(UsageError, match="causal has a language head and was not made for"):
                ask([BOS])
