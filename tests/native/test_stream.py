"""The core's stream by itself: a program of linears whose weights are read from a file while it runs."""

import ctypes
import errno
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.native.one_op import NO_CACHE, aligned, native_bands, random_linear

from rockledge.artifact.uncached import BLOCK, UncachedFile
from rockledge.errors import ArtifactError, DiskError, NativeError
from rockledge.runtime import native
from rockledge.runtime.native import Buffer, BufferKind, Op, OpCode, Program, Shape
from rockledge.runtime.native_step import Batch, Step
from rockledge.runtime.streaming.fit import Fit, fit, least_ring
from rockledge.runtime.streaming.pieces import Piece, pieces_of
from rockledge.runtime.streaming.stream import WeightStream

LINEARS, COLS, ROWS, VOCAB = 7, 64, 2, 40


class Model:
    """Rows of an embedding, quantised, times several matrices that write a buffer each, and a head in parts.
    All codes and indices are views of one array, which is also a file."""

    def __init__(self, path: Path) -> None:
        rng = np.random.default_rng(1)
        layers = [[(8 * (n + 1), 8 if n % 3 else 3)] for n in range(LINEARS)]
        shapes = [[(VOCAB, 4)], *layers, [(16, 2)], [(9, 4)]]
        packed = [random_linear(rng, COLS, bands) for bands in shapes]
        parts: list[NDArray[np.uint8]] = []
        for linear in packed:
            parts += [linear.codes, linear.index, np.zeros(1000, np.uint8)]
        sizes = [-(-part.nbytes // 64) * 64 for part in parts]
        self.file = aligned(np.zeros(sum(sizes), np.uint8))
        starts = np.cumsum([0, *sizes])
        for start, part in zip(starts, parts, strict=False):
            self.file[start : start + part.nbytes] = part
        path.write_bytes(self.file.tobytes())
        self.path = path
        bands, ops = [], []
        buffers = [Buffer(BufferKind.FLOAT, COLS, 0), Buffer(BufferKind.INT8, COLS, 1)]
        buffers.append(Buffer(BufferKind.FLOAT, 1, 2))
        for number, linear in enumerate(packed):
            codes, index = (self.file[starts[3 * number + k] :] for k in (0, 1))
            column = 16 if number == len(packed) - 1 else 0
            [band] = native_bands(linear, column)
            band = replace(
                band,
                codes=codes[: band.codes.nbytes],
                index=None if band.index is None else index[: band.index.nbytes],
            )
            if number == 0:
                ops.append(Op(OpCode.EMBED, (), (0,), first_band=0, bands=1, real=(1.0,)))
                ops.append(Op(OpCode.QUANT, (0,), (1, 2), dim=(0,)))
            elif number <= LINEARS:
                buffers.append(Buffer(BufferKind.FLOAT, band.rows, len(buffers)))
                ops.append(Op(OpCode.LINEAR, (1, 2), (len(buffers) - 1,), first_band=number, bands=1))
            else:
                ops.append(Op(OpCode.LINEAR, (1, 2), (native.STEP_LOGITS,), True, first_band=number, bands=1))
            bands.append(band)
        self.plan = _Plan(tuple(ops), tuple(bands))
        shape = Shape(max_rows=ROWS, **NO_CACHE)
        self.program = Program(ops, bands, buffers, shape)
        self.pieces = pieces_of(self.plan, self.mapping)  # type: ignore[arg-type]
        rows = np.arange(ROWS, dtype=np.int32)
        tables = np.zeros((1, 1), np.int32)
        self.batch = Batch(rows * 7, rows * 0, rows * 0, tables, rows)

    @property
    def mapping(self) -> int:
        return int(self.file.ctypes.data)

    def logits(self, step: Step, *, head: bool = True) -> NDArray[np.float32]:
        found = np.zeros((ROWS, 25), np.float32)
        last = -1 if head else len(self.plan.ops) - 2
        step.run(self.batch, found if head else None, last=last)
        return found

    def stream(self, chosen: Fit, pieces: list[Piece] | None = None, **options: object) -> WeightStream:
        file = UncachedFile(self.path)
        try:
            return WeightStream(
                self.program,
                self.plan,  # type: ignore[arg-type]
                pieces or self.pieces,
                chosen,
                file=file,
                mapping=self.mapping,
                threads=2,
                **options,  # type: ignore[arg-type]
            )
        except NativeError:
            file.close()
            raise


class _Plan:
    def __init__(self, ops: tuple[Op, ...], bands: tuple[native.Band, ...]) -> None:
        self.ops, self.bands = ops, bands


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(tmp_path_factory.mktemp("stream") / "weights")


@pytest.fixture
def step(model: Model) -> Iterator[Step]:
    made = Step(model.program, threads=2)
    yield made
    made.close()


def fits(model: Model) -> list[Fit]:
    sizes = [piece.bytes for piece in model.pieces]
    return [fit(sizes, room) for room in (least_ring(sizes), sum(sizes) - BLOCK, sum(sizes))]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_streamed_weights_give_the_same_bits(model: Model, step: Step, which: int) -> None:
    """In any order of whole steps and of steps without the head, in which the ring ends elsewhere."""
    expected = model.logits(step)
    chosen = fits(model)[which]
    stream = model.stream(chosen)
    step.use_stream(stream)
    chance = np.random.default_rng(which)
    for _ in range(60):
        if chance.random() < 0.4:
            model.logits(step, head=False)
        else:
            assert np.array_equal(model.logits(step), expected)
    stats = stream.stats
    assert stats.kept_read == chosen.kept
    assert (stats.bytes_read > 0) == (chosen.streamed > 0)
    step.close()
    stream.close()
    assert stream.stats == replace(stats, bytes_read=stream.stats.bytes_read)


@pytest.mark.parametrize("which", [0, 1])
def test_reads_that_fail_at_any_time_end_a_run_and_no_other(model: Model, step: Step, which: int) -> None:
    expected = model.logits(step)
    chance = np.random.default_rng(which)
    fail = [False]

    def read(to: int, size: int, offset: int) -> int:
        if fail[0] and chance.random() < 0.2:
            return -errno.EIO
        part = model.file[offset : offset + size]
        ctypes.memmove(to, part.ctypes.data, part.nbytes)
        return part.nbytes

    stream = model.stream(fits(model)[which], read=read)
    step.use_stream(stream)
    failures = []
    for number in range(120):
        fail[0] = number % 3 > 0
        try:
            assert np.array_equal(model.logits(step), expected)
        except DiskError as error:
            failures.append(str(error))
        fail[0] = False
        with suppress(DiskError):  # what was read ahead may have failed
            model.logits(step)
        assert np.array_equal(model.logits(step), expected)
    assert all("cannot be read (input/output error)" in failure for failure in failures)
    assert len(failures) > 5
    step.close()
    stream.close()


@pytest.mark.parametrize("which", [0, 1])
def test_reads_that_give_less_than_was_asked_or_are_interrupted_go_on(
    model: Model, step: Step, which: int
) -> None:
    """As those of a file system in user space or of a network may be, by any number of bytes."""
    expected = model.logits(step)
    chance = np.random.default_rng(which)

    def read(to: int, size: int, offset: int) -> int:
        if chance.random() < 0.2:
            return -errno.EINTR
        part = model.file[offset : offset + min(size, int(chance.integers(1, 3 * BLOCK)))]
        ctypes.memmove(to, part.ctypes.data, part.nbytes)
        return part.nbytes

    stream = model.stream(fits(model)[which], read=read)
    step.use_stream(stream)
    for _ in range(20):
        assert np.array_equal(model.logits(step), expected)
    step.close()
    stream.close()


def test_a_file_that_ends_early_is_said(model: Model, step: Step) -> None:
    stream = model.stream(fits(model)[0], read=lambda to, size, offset: 0)
    step.use_stream(stream)
    with pytest.raises(ArtifactError, match="was cut short while in use"):
        model.logits(step)
    step.close()
    stream.close()


def _without_the_first(pieces: list[Piece]) -> list[Piece]:
    return pieces[1:]


def _of_another_operation(pieces: list[Piece]) -> list[Piece]:
    return [replace(pieces[0], op=0), *pieces[1:]]


def _beyond_the_file(pieces: list[Piece]) -> list[Piece]:
    segments = tuple(replace(segment, file=1 << 40) for segment in pieces[0].segments)
    return [replace(pieces[0], segments=segments), *pieces[1:]]


def _not_on_a_block(pieces: list[Piece]) -> list[Piece]:
    segments = tuple(replace(segment, bytes=segment.bytes - 64) for segment in pieces[-1].segments)
    return [*pieces[:-1], replace(pieces[-1], segments=segments)]


@pytest.mark.parametrize(
    "change", [_without_the_first, _of_another_operation, _beyond_the_file, _not_on_a_block]
)
def test_plans_that_do_not_fit_together_are_refused(
    model: Model, change: Callable[[list[Piece]], list[Piece]]
) -> None:
    changed = change(model.pieces)
    sizes = [piece.bytes for piece in changed]
    ring = -(-2 * max(sizes) // BLOCK) * BLOCK
    chosen = Fit((False,) * len(changed), ring, 0, sum(sizes))
    with pytest.raises((NativeError, ValueError, KeyError)):
        model.stream(chosen, changed)


def test_a_ring_that_is_too_small_is_refused(model: Model) -> None:
    chosen = replace(fits(model)[0], ring=BLOCK)
    with pytest.raises(NativeError, match="fit into the ring"):
        model.stream(chosen)


def test_a_stream_is_for_its_own_program_and_so_many_threads(model: Model, tmp_path: Path) -> None:
    stream = model.stream(fits(model)[0])
    another = Model(tmp_path / "weights")
    for program, threads, match in ((another.program, 1, "another program"), (model.program, 3, "3")):
        step = Step(program, threads=threads)
        with pytest.raises(NativeError, match=match):
            step.use_stream(stream)
        step.close()
    stream.close()
