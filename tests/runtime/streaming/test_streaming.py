"""Engines whose weights are read from the disk in every step: the same bits, within the budget, past the
page cache, and alive after the disk has failed."""

import ctypes
import logging
import mmap
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.runtime.artifacts import VARIANTS
from tests.runtime.streaming.models import budget_for, made
from tests.runtime.streaming.readers import FailingReader

from bench.limited_disk import LimitedReader, MemoryReader
from rockledge.artifact.layout import TENSORS
from rockledge.errors import ArtifactError, BudgetError, DiskError, NpuError, UsageError
from rockledge.runtime import loading
from rockledge.runtime.engine import Engine
from rockledge.runtime.request import Request
from rockledge.runtime.sampling import Sampling
from rockledge.runtime.streaming.streamed import streamed

IDS = [int(token) for token in np.random.default_rng(3).integers(0, 256, 90)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("streaming") / "model")


def answers(engine: Engine) -> list[int]:
    drawn = Sampling(temperature=0.8, seed=7)
    return [
        token
        for piece in engine.generate(IDS[:40], max_tokens=12, sampling=drawn, ignore_eos=True)
        for token in piece.ids
    ]


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_every_family_gives_the_same_bits(variant: str, artifact_path: Callable[[str], Path]) -> None:
    path = artifact_path(variant)
    with Engine.load(path, threads=1, ctx=200) as engine:
        expected, text = engine.logits(IDS), answers(engine)
    with Engine.load(path, threads=1, ctx=200, memory_budget=budget_for(path, 0)) as engine:
        assert engine.streaming is not None
        assert np.array_equal(engine.logits(IDS, chunk=17), expected)
        assert answers(engine) == text


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("piece_bytes", [60_000, 1 << 24])
def test_whatever_stays_in_memory_the_bits_are_the_same(
    share: float, piece_bytes: int, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where every matrix is cut into many pieces, and with several threads."""
    with Engine.load(model, threads=2, ctx=200) as engine:
        expected, text = engine.logits(IDS), answers(engine)
    monkeypatch.setattr(loading, "streamed", partial(streamed, piece_bytes=piece_bytes))
    budget = budget_for(model, share, threads=2)
    with Engine.load(model, threads=2, ctx=200, memory_budget=budget) as engine:
        stats = engine.streaming
        assert stats is not None
        assert (stats.kept > 0) == (share > 0)
        assert np.array_equal(engine.logits(IDS), expected)
        assert answers(engine) == text
        assert engine.footprint.bytes <= budget


def test_requests_that_share_steps_get_what_each_gets_alone(model: Path) -> None:
    prompts = [IDS[:n] for n in (5, 23, 60)]
    budget = budget_for(model, 0.2, context=500, threads=2)
    texts = []
    for options in ({}, {"memory_budget": budget}):
        with Engine.load(model, threads=2, ctx=500, parallel=3, **options) as engine:  # type: ignore[arg-type]
            found: dict[str, list[int]] = {str(n): [] for n in range(3)}
            for n, prompt in enumerate(prompts):
                engine.submit(Request(str(n), tuple(prompt), max_tokens=9, ignore_eos=True))
            while not engine.idle:
                for output in engine.step():
                    if output.piece is not None:
                        found[output.request] += output.piece.ids
            texts.append(found)
            again = [piece.ids for piece in engine.generate(IDS[:60], max_tokens=1)]
            assert again
            assert engine.stats().cached_tokens >= 32  # prefixes are found as ever
    assert texts[0] == texts[1]


def test_a_step_reads_the_weights_once_however_many_rows_it_has(model: Path) -> None:
    with Engine.load(model, threads=1, ctx=200, memory_budget=budget_for(model, 0.2)) as engine:
        engine.logits(IDS[:32], chunk=32)
        for rows in (1, 32):
            before = engine.streaming
            assert before is not None
            for _ in range(5):
                engine.logits(IDS[:rows], chunk=rows)
            after = engine.streaming
            assert after is not None
            assert after.kept_read == before.kept_read
            # What was read ahead at the beginning and at the end is at most a ring.
            assert abs(after.bytes_read - before.bytes_read - 5 * after.streamed) <= after.ring


def test_an_embedding_is_not_in_memory_even_where_everything_else_is(model: Path) -> None:
    """A budget that only lacks the embedding: nothing but rows of it is read once the rest is there."""
    with Engine.load(model, threads=1, ctx=200, memory_budget=budget_for(model, 1.0)) as engine:
        assert engine.footprint.step_tokens < len(IDS)  # so the first steps need no head
        assert list(engine.generate(IDS, max_tokens=2))
        before = engine.streaming
        engine.logits(IDS[:8])
        stats = engine.streaming
        assert stats is not None
        assert before is not None
        assert (stats.streamed, stats.ring, stats.bytes_read) == (0, 0, 0)
        assert stats.kept_read == stats.kept
        assert 0 < stats.embedding_read - before.embedding_read < 8 * 3 * 8192


def test_enough_memory_is_no_streaming(model: Path) -> None:
    with Engine.load(model, threads=1, ctx=200, memory_budget=1 << 30) as engine:
        assert engine.streaming is None


def test_too_small_a_budget_says_what_would_do(model: Path) -> None:
    least = budget_for(model, 0, context=1)
    with pytest.raises(BudgetError, match=r"--memory-budget is 100.0 kB, expected at least .* cache"):
        Engine.load(model, threads=1, memory_budget=100_000)
    with Engine.load(model, threads=1, memory_budget=least) as engine:
        assert engine.context >= 32
    with pytest.raises(BudgetError, match="--memory-budget"):
        Engine.load(model, threads=1, memory=least)


def test_a_smaller_limit_of_memory_is_the_budget(model: Path) -> None:
    """Also where the budget alone would have room for all weights."""
    least = budget_for(model, 0)
    with Engine.load(model, threads=1, ctx=200, memory=least, memory_budget=1 << 30) as engine:
        assert engine.streaming is not None
        assert engine.footprint.bytes <= least
    with pytest.raises(BudgetError, match=r"--memory is 100.0 kB, expected at least .* for the ring"):
        Engine.load(model, threads=1, memory=100_000, memory_budget=1 << 30)


def test_a_budget_is_any_number_of_bytes(model: Path) -> None:
    least = budget_for(model, 0)
    written: Any = least + 0.5
    with Engine.load(model, threads=1, ctx=200, memory_budget=written) as engine:
        assert engine.streaming is not None
    for wrong in ("3g", float("nan"), float("inf"), True):
        with pytest.raises(UsageError, match=r"memory_budget is .*, expected a number of bytes"):
            Engine.load(model, threads=1, memory_budget=wrong)  # type: ignore[arg-type]
    for number in (0, -1):
        with pytest.raises(BudgetError):
            Engine.load(model, threads=1, memory_budget=number)
    with pytest.raises(BudgetError, match="expected at least"):
        Engine.load(model, threads=1, ctx=200, memory_budget=least - 1)


def test_the_npu_is_refused_or_left_out(model: Path) -> None:
    budget = budget_for(model, 0)
    with pytest.raises(NpuError, match="streamed"):
        Engine.load(model, threads=1, ctx=200, memory_budget=budget, npu="require")
    with Engine.load(model, threads=1, ctx=200, memory_budget=budget) as engine:
        assert "streamed" in (engine.npu.reason or "")


def cached_pages(path: Path) -> int:
    """Pages of a file that are in the page cache."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        mapped = mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ)
    pages = -(-size // mmap.PAGESIZE)
    found = (ctypes.c_ubyte * pages)()
    address = np.frombuffer(mapped, np.uint8).ctypes.data
    assert libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), found) == 0
    return sum(page & 1 for page in found)


@pytest.mark.parametrize("direct", [True, False])
def test_the_page_cache_stays_clean(
    direct: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With direct reads, and where they are refused, which the log says."""
    if not direct:
        opened = os.open

        def refusing(path: object, flags: int, *rest: object, **more: object) -> int:
            if flags & os.O_DIRECT and str(path).endswith(TENSORS):
                raise OSError(22, "Invalid argument")
            return opened(path, flags, *rest, **more)  # type: ignore[call-overload,no-any-return]

        monkeypatch.setattr(os, "open", refusing)
    model = made(tmp_path / "model")
    caplog.set_level(logging.INFO)
    with Engine.load(model, threads=1, ctx=200, memory_budget=budget_for(model, 0.3)) as engine:
        stats = engine.streaming
        assert stats is not None
        if direct and not stats.direct:
            pytest.skip("this file system has no direct I/O")
        assert stats.direct == direct
        engine.logits(IDS)
        engine.verify()
        left = cached_pages(model / TENSORS) * mmap.PAGESIZE
    assert left < 0.05 * (model / TENSORS).stat().st_size
    assert ("direct I/O is refused here" in caplog.text) == (not direct)


@pytest.fixture
def failing(model: Path) -> FailingReader:
    return FailingReader(model)


@pytest.mark.parametrize("good", [0, 1, 7, 20, 31])
def test_a_disk_that_fails_costs_the_requests_and_nothing_else(
    good: int, model: Path, failing: FailingReader
) -> None:
    with Engine.load(model, threads=2, ctx=200) as engine:
        expected, text = engine.logits(IDS), answers(engine)
    budget = budget_for(model, 0.3, threads=2)
    with Engine.load(model, threads=2, ctx=200, memory_budget=budget, read=failing) as engine:
        for _ in range(4):  # at first what stays is not there yet either
            failing.good = good
            with pytest.raises(DiskError, match=r"model.safetensors cannot be read \(input/output error\)"):
                engine.logits(IDS, chunk=30)
            failing.good = good
            with pytest.raises(DiskError):
                answers(engine)
            failing.good = float("inf")
            assert np.array_equal(engine.logits(IDS), expected)
            assert answers(engine) == text
        assert engine.free_pages == engine.pages


def test_a_file_that_is_cut_short_is_a_sentence(tmp_path: Path) -> None:
    path = made(tmp_path / "model")
    with Engine.load(path, threads=1, ctx=200, memory_budget=budget_for(path, 0)) as engine:
        engine.logits(IDS[:8])
        os.truncate(path / TENSORS, (path / TENSORS).stat().st_size // 2)
        with pytest.raises(ArtifactError, match="was cut short while in use"):
            engine.logits(IDS[:8])
        with pytest.raises(ArtifactError, match="was cut short while in use"):
            engine.verify()


def test_a_file_that_is_replaced_stays_in_use(tmp_path: Path) -> None:
    path = made(tmp_path / "model")
    with Engine.load(path, threads=1, ctx=200, memory_budget=budget_for(path, 0)) as engine:
        before = engine.logits(IDS[:8])
        (path / "another").write_bytes(b"of another kind")
        os.replace(path / "another", path / TENSORS)
        assert np.array_equal(engine.logits(IDS[:8]), before)


def test_an_engine_can_be_closed_and_requests_cancelled_while_the_disk_reads(model: Path) -> None:
    reader = LimitedReader(MemoryReader(model), 50e6)
    budget = budget_for(model, 0)
    with Engine.load(model, threads=1, ctx=200, memory_budget=budget, read=reader) as engine:
        engine.submit(Request("one", tuple(IDS[:40]), max_tokens=100, ignore_eos=True))
        engine.step()
        engine.cancel("one")
        assert engine.step()[-1].last
        assert engine.free_pages == engine.pages
    # It reads ahead when it is closed, and ends all the same.


@pytest.mark.parametrize("slower", ["disk", "compute"])
def test_a_step_takes_what_the_slower_of_disk_and_compute_does(slower: str, model: Path) -> None:
    """At least 90 % of min(disk, compute), where one takes twice as long as the other: 67 % would be one
    after the other. The disk is one of a limited rate, whose time is its bytes over that; what a step did not
    wait for the disk it has computed, in the same run. A busy machine may need more than one try."""
    reader = LimitedReader(MemoryReader(model), 1e12)
    best, found = 0.0, (0.0, 0.0, 0.0)
    budget = budget_for(model, 0.3) + (4 << 20)  # room for larger steps
    with Engine.load(model, threads=1, ctx=200, memory_budget=budget, read=reader) as engine:
        engine.logits(IDS)  # what stays is there now
        for _ in range(20):
            elapsed, disk_s, compute_s = found = measured(engine, reader)
            even = min(disk_s, compute_s) > 0.25 * max(disk_s, compute_s)
            if even and (disk_s > compute_s) == (slower == "disk"):
                best = max(best, max(disk_s, compute_s) / elapsed)
            if best >= 0.9:
                break
            reader.rate *= disk_s / compute_s / (2.0 if slower == "disk" else 0.5)
    assert best >= 0.9, found


def measured(engine: Engine, reader: LimitedReader) -> tuple[float, float, float]:
    """Seconds that some steps take, and of them those of the disk, and of computing."""
    begun, before = time.perf_counter(), engine.streaming
    for _ in range(2):
        engine.logits(IDS)
    elapsed, after = time.perf_counter() - begun, engine.streaming
    assert before is not None
    assert after is not None
    disk_s = (after.bytes_read - before.bytes_read) / reader.rate
    return elapsed, disk_s, elapsed - (after.waited_seconds - before.waited_seconds)
