"""Models whose layers see a window: against plain NumPy, bit for bit, and with few pages."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from tests.native.one_op import supported_kernels
from tests.runtime.artifacts import VOCAB
from tests.runtime.reference_numpy import reference_logits

from rockledge.artifact import open_artifact
from rockledge.board.memory import PAGE_TOKENS, cache_bytes, kv_bytes
from rockledge.runtime.engine import Engine
from rockledge.runtime.executor import Executor
from rockledge.runtime.kv_cache import CachedSequence, PageCache, WindowPassedError
from rockledge.runtime.program import build_program
from rockledge.runtime.request import Request

ArtifactPath = Callable[[str], Path]
VARIANTS = ["windows", "windows-and-bias"]
WINDOW = 48  # of the first layer of "windows"; the second has none


def some_tokens(count: int) -> list[int]:
    return np.random.default_rng(count).integers(0, VOCAB, count).tolist()


def test_a_long_text_agrees_with_the_reference(artifact_path: ArtifactPath) -> None:
    """As close as without windows; were the window left out, it would be above 0.8 on average."""
    tokens = some_tokens(700)
    with Engine.load(artifact_path("windows"), threads=2, ctx=1024, sequences=1) as engine:
        difference = np.abs(engine.logits(tokens) - reference_logits(engine.artifact, tokens))
    assert difference.mean() < 5e-4
    assert difference.max() < 0.02


@pytest.mark.parametrize("variant", VARIANTS)
def test_chunks_threads_kernels_and_pages_change_no_bit(artifact_path: ArtifactPath, variant: str) -> None:
    tokens = some_tokens(300)
    expected = None
    for kernel in supported_kernels():
        for threads, sequences in ((1, 4), (3, 1)):
            with Engine.load(
                artifact_path(variant), threads=threads, ctx=320, kernel=kernel, sequences=sequences
            ) as engine:
                for chunk in (None, 7, 100) if threads == 3 else (None,):
                    found = engine.logits(tokens, chunk=chunk)
                    expected = found if expected is None else expected
                    assert found.tobytes() == expected.tobytes(), (kernel, threads, chunk)


def test_a_window_takes_the_pages_that_it_and_a_step_reach(artifact_path: ArtifactPath) -> None:
    """At 1024 tokens of context 32 pages without a window, and 48 + 255 positions lie in at most 11 pages."""
    with Engine.load(artifact_path("windows"), threads=1, ctx=1024, sequences=1) as engine:
        assert engine.pages == 32 + 11
        entry = 2 * engine.config.kv_heads * (32 + 4)
        cache = (32 + 11) * PAGE_TOKENS * entry
        assert cache == cache_bytes(engine.config, 1024, engine.footprint.step_tokens, 1)
        assert engine.native_bytes == engine.footprint.bytes - engine.artifact.tensor_bytes
        assert engine.cache_bytes_read(1000) == (1000 + WINDOW) * entry == kv_bytes(engine.config, 1000)
        assert len(engine.logits(some_tokens(1000))) == 1000
        assert engine.free_pages == engine.pages
    with Engine.load(artifact_path("windows"), threads=1, ctx=1024) as engine:
        assert engine.pages == 32 + 32  # of several sequences that are as long as the context together
    with Engine.load(artifact_path("windows"), threads=1, ctx=1024, memory=700_000) as engine:
        assert engine.footprint.step_tokens < 256
        assert engine.footprint.bytes <= 700_000
        assert engine.native_bytes == engine.footprint.bytes - engine.artifact.tensor_bytes


def test_an_answer_far_beyond_the_window(artifact_path: ArtifactPath) -> None:
    prompt = some_tokens(330)
    with Engine.load(artifact_path("windows"), threads=2, ctx=640, sequences=1) as engine:
        pieces = engine.generate(prompt, max_tokens=200, ignore_eos=True)
        answer = [token for piece in pieces for token in piece.ids]
        logits = engine.logits(prompt + answer)
        assert answer == logits[len(prompt) - 1 : -1].argmax(axis=1).tolist()
        scores = engine.score(prompt + answer)
        assert [score.id for score in scores] == (prompt + answer)[1:]
        assert engine.free_pages == engine.pages


def test_requests_that_find_few_pages_of_the_window_are_all_answered(artifact_path: ArtifactPath) -> None:
    """The pages without a window would hold all of them."""
    prompts = [tuple(some_tokens(280 + number)) for number in range(4)]
    requests = [Request(str(n), prompt, max_tokens=40, ignore_eos=True) for n, prompt in enumerate(prompts)]
    with Engine.load(artifact_path("windows"), threads=1, ctx=640, sequences=1) as engine:
        answers: dict[str, list[int]] = {request.id: [] for request in requests}
        for request in requests:
            engine.submit(request)
        while not engine.idle:
            for output in engine.step():
                assert output.piece is not None
                answers[output.request] += output.piece.ids
        for request in requests:
            pieces = engine.generate(request.prompt, max_tokens=40, ignore_eos=True)
            assert answers[request.id] == [token for piece in pieces for token in piece.ids]
        assert engine.free_pages == engine.pages


def test_a_prefix_is_found_where_the_pages_of_the_last_window_are_left(artifact_path: ArtifactPath) -> None:
    with Engine.load(artifact_path("windows"), threads=1, ctx=640, sequences=1) as engine:
        first = engine.generate(some_tokens(300), max_tokens=4, ignore_eos=True)
        assert sum(len(piece.ids) for piece in first) == 4
        more = [*some_tokens(300), 1, 2, 3]
        again = engine.generate(more, max_tokens=4, ignore_eos=True)
        found = [token for piece in again for token in piece.ids]
        assert again.stats.cached_tokens == 300
    with Engine.load(artifact_path("windows"), threads=1, ctx=640, prefixes=False) as engine:
        pieces = engine.generate(more, max_tokens=4, ignore_eos=True)
        assert found == [token for piece in pieces for token in piece.ids]


@contextmanager
def executor_of(path: Path, context: int, rows: int) -> Iterator[tuple[Executor, PageCache]]:
    plan = build_program(open_artifact(path))
    pools = plan.pools(context, rows, sequences=3)
    executor = Executor(plan, max_rows=rows, context=context, pools=pools, threads=1, kernel="auto")
    cache = PageCache([(pool.window, pool.pages) for pool in pools], PAGE_TOKENS, executor.copy_page)
    yield executor, cache
    assert cache.free_pages == cache.pages
    executor.close()


@pytest.mark.parametrize("variant", VARIANTS)
def test_forks_and_cuts_see_their_own_past(artifact_path: ArtifactPath, variant: str) -> None:
    path, rows = artifact_path(variant), 16
    trunk, left, right = some_tokens(150), some_tokens(90), some_tokens(91)
    with Engine.load(path, threads=1, ctx=320) as engine:
        expected = [engine.logits(ids) for ids in (trunk + left, trunk + right, trunk + left[:62] + right)]
    with executor_of(path, 960, rows) as (executor, cache):

        def read(sequence: CachedSequence, ids: list[int]) -> np.ndarray:
            logits = np.zeros((len(ids), VOCAB), np.float32)
            for first in range(0, len(ids), rows):
                part = np.array(ids[first : first + rows], np.int32)
                sequence.reserve(len(part))
                sequence.write_table(executor.tables[:, 0])
                executor.place(0, 0, part, sequence.length)
                executor.wanted[: len(part)] = range(len(part))
                executor.step(len(part), results=logits[first : first + rows])
                sequence.advance(len(part))
            return logits

        one = cache.open()
        assert np.array_equal(read(one, trunk), expected[0][:150])
        two = one.fork()
        assert np.array_equal(read(one, left[:70]), expected[0][150:220])
        assert np.array_equal(read(two, right), expected[1][150:])
        with pytest.raises(WindowPassedError, match="read its tokens again"):
            one.truncate(151)
        assert one.shortest <= 212
        one.truncate(212)  # 62 tokens after the fork
        three = one.fork()
        assert np.array_equal(read(three, right[:64]), expected[2][212:276])
        assert np.array_equal(read(one, left[62:]), expected[0][212:])
        for sequence in (one, two, three):
            sequence.close()
