"""A whole small decoder as one program: results that depend on nothing but the tokens."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tests.native.one_op import (
    NO_CACHE,
    float_buffer,
    int8_buffer,
    native_bands,
    open_step,
    random_linear,
    step_of,
    supported_kernels,
)

from rockledge.errors import NativeError
from rockledge.formats.hadamard import random_rotation
from rockledge.formats.packing import dequantize
from rockledge.runtime import native
from rockledge.runtime.native import OpCode
from rockledge.runtime.native_step import Batch, Step

KERNELS = supported_kernels()
HIDDEN, FFN, HEADS, KV_HEADS, HEAD_DIM, VOCAB, LAYERS = 96, 160, 4, 2, 24, 101, 3
PAGE, PAGES = 16, 8
X, Q, SX, QKV, Q8, SQ, ATT, QA, SA, GU, QF, SF, LAST, TURNED, QL, SL = range(16)


class Decoder:
    """Bands and operations of a random decoder; `program` builds it for a kernel and a number of threads."""

    def __init__(self, planes: int) -> None:
        rng = np.random.default_rng(5)
        self.bands: list[native.Band] = []
        self.ops: list[native.Op] = []
        inner = HEADS * HEAD_DIM
        self.buffers = [
            float_buffer(HIDDEN, X),
            int8_buffer(HIDDEN, Q, planes),
            float_buffer(1, SX),
            float_buffer((HEADS + 2 * KV_HEADS) * HEAD_DIM, QKV),
            int8_buffer(HEADS * -(-HEAD_DIM // 32) * 32, Q8),
            float_buffer(HEADS, SQ),
            float_buffer(inner, ATT),
            int8_buffer(inner, QA),
            float_buffer(1, SA),
            float_buffer(2 * FFN, GU),
            int8_buffer(FFN, QF, 2),
            float_buffer(1, SF),
            float_buffer(HIDDEN, LAST),
            float_buffer(HIDDEN, TURNED),
            int8_buffer(HIDDEN, QL, 2),
            float_buffer(1, SL),
        ]
        embed = self._linear(rng, HIDDEN, [(56, 4), (45, 3)])
        self.op(OpCode.EMBED, (), (X,), real=(1.0,), **embed)
        frequencies = (10000.0 ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM)).astype(np.float32)
        for layer in range(LAYERS):
            self.op(OpCode.NORM_QUANT, (X,), (Q, SX), real=(1e-5,))
            qkv = self._linear(rng, HIDDEN, [(24, 8), (72, 4), (48, 3), (48, 2)], bias=True)
            self.op(OpCode.LINEAR, (Q, SX), (QKV,), **qkv)
            self.op(
                OpCode.ROPE_KV,
                (QKV,),
                (Q8, SQ),
                dim=(layer, 0, HEAD_DIM),
                real=(1e-5, 1.0, 0.1),
                weight=(frequencies,),
            )
            self.op(OpCode.ATTENTION, (Q8, SQ), (ATT,), dim=(layer,), real=(0.1,))
            self.op(OpCode.QUANT, (ATT,), (QA, SA))
            self.op(OpCode.LINEAR, (QA, SA, X), (X,), **self._linear(rng, inner, [(HIDDEN, 4)]))
            self.op(OpCode.NORM_QUANT, (X,), (Q, SX), real=(1e-5,))
            self.op(OpCode.LINEAR, (Q, SX), (GU,), **self._linear(rng, HIDDEN, [(FFN, 4), (FFN, 3)]))
            self.op(OpCode.GATED_QUANT, (GU,), (QF, SF), dim=(32,))
            self.op(OpCode.LINEAR, (QF, SF, X), (X,), **self._linear(rng, FFN, [(HIDDEN, 8)]))
        self.op(OpCode.GATHER, (X,), (LAST,))
        turn = random_rotation(HIDDEN, 1)
        self.op(
            OpCode.ROTATE,
            (LAST,),
            (TURNED,),
            on_logits=True,
            dim=(turn.block, turn.odd, 1),
            weight=(turn.signs, turn.mix),
        )
        self.op(OpCode.NORM_QUANT, (TURNED,), (QL, SL), on_logits=True, real=(1e-5,))
        self.op(OpCode.LINEAR, (QL, SL), (native.STEP_LOGITS,), on_logits=True, **embed)

    def _linear(self, rng: np.random.Generator, cols: int, bands: list, bias: bool = False) -> dict[str, int]:
        first = len(self.bands)
        self.bands += native_bands(random_linear(rng, cols, bands, bias))
        return {"first_band": first, "bands": len(self.bands) - first}

    def op(self, code: OpCode, inputs: tuple[int, ...], outputs: tuple[int, ...], **fields: object) -> None:
        self.ops.append(native.Op(code, inputs, outputs, **fields))

    def program(self, rows: int, kernel: str, threads: int) -> Step:
        shape = native.Shape(
            rows, HEADS, KV_HEADS, HEAD_DIM, PAGE, PAGE * PAGES, (native.Pool(LAYERS, PAGES),)
        )
        return open_step(self.ops, self.bands, self.buffers, shape, threads=threads, kernel=kernel)

    def logits(self, tokens: np.ndarray, chunk: int, kernel: str, threads: int) -> np.ndarray:
        program = self.program(chunk, kernel, threads)
        table = np.arange(PAGES, dtype=np.int32)[None, ::-1].copy()
        found = np.zeros((len(tokens), VOCAB), np.float32)
        for start in range(0, len(tokens), chunk):
            rows = len(tokens[start : start + chunk])
            step = Batch(
                tokens[start : start + chunk].copy(),
                np.arange(start, start + rows, dtype=np.int32),
                np.zeros(rows, np.int32),
                table,
                np.arange(rows, dtype=np.int32),
            )
            program.run(step, found[start : start + rows])
        program.close()
        return found


@pytest.mark.parametrize("planes", [1, 2])
def test_logits_depend_on_the_tokens_alone(planes: int) -> None:
    decoder = Decoder(planes)
    tokens = np.random.default_rng(1).integers(0, VOCAB, 75).astype(np.int32)
    expected = decoder.logits(tokens, 75, "portable", 1)
    assert np.isfinite(expected).all()
    assert expected.std() > 0
    for kernel in KERNELS:
        for chunk, threads in [(75, 2), (75, 4), (1, 1), (1, 2), (2, 3), (33, 2)]:
            assert np.array_equal(decoder.logits(tokens, chunk, kernel, threads), expected)


def test_only_the_wanted_rows_get_logits_in_their_order() -> None:
    decoder = Decoder(1)
    tokens = np.arange(20, dtype=np.int32)
    expected = decoder.logits(tokens, 20, KERNELS[-1], 1)
    program = decoder.program(20, KERNELS[-1], 2)
    wanted = np.array([7, 19, 7], np.int32)
    found = np.full((4, VOCAB), 9.0, np.float32)
    table = np.arange(PAGES, dtype=np.int32)[None]
    program.run(step_of(20, tokens=tokens, block_tables=table, logit_rows=wanted), found)
    assert np.array_equal(found[:3], expected[wanted])
    assert (found[3] == 9.0).all()
    program.run(step_of(20, tokens=tokens, block_tables=table))  # no logits wanted: no array needed
    with pytest.raises(NativeError, match="no array"):
        program.run(step_of(20, tokens=tokens, block_tables=table, logit_rows=wanted))
    program.close()


@pytest.mark.parametrize("kernel", KERNELS)
def test_embedding_rows(kernel: str) -> None:
    packed = random_linear(np.random.default_rng(2), 45, [(13, 3), (6, 8), (30, 2), (11, 4)])
    bands = native_bands(packed)
    program = open_step(
        [native.Op(OpCode.EMBED, outputs=(0,), bands=4, real=(1.0,))],
        bands,
        [float_buffer(45, 0)],
        native.Shape(60, **NO_CACHE),
        kernel=kernel,
        threads=2,
    )
    tokens = np.random.default_rng(3).permutation(60).astype(np.int32)
    program.run(step_of(60, tokens=tokens))
    assert np.array_equal(program.buffer(0), dequantize(packed)[tokens])
    program.close()


def test_taps_run_parts_of_a_program() -> None:
    decoder = Decoder(1)
    tokens = np.arange(9, dtype=np.int32)
    table = np.arange(PAGES, dtype=np.int32)[None]
    program = decoder.program(9, "auto", 2)
    step = step_of(9, tokens=tokens, block_tables=table, logit_rows=np.array([8], np.int32))
    whole, pieces = np.zeros((2, 1, VOCAB), np.float32)
    program.run(step, whole)
    for i in range(len(decoder.ops)):
        program.run(step, pieces, first=i, last=i + 1)
    assert np.array_equal(whole, pieces)
    program.close()


def test_a_program_refuses_two_steps_at_once() -> None:
    decoder = Decoder(1)
    program = decoder.program(64, "portable", 2)
    step = step_of(64, block_tables=np.arange(PAGES, dtype=np.int32)[None])
    failures: list[NativeError] = []

    def run_many() -> None:
        for _ in range(100):
            try:
                program.run(step)
            except NativeError as error:
                failures.append(error)

    threads = [threading.Thread(target=run_many) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures
    assert all("already running" in str(error) for error in failures)
    program.run(step)
    program.close()


def test_programs_come_and_go_with_their_threads() -> None:
    decoder = Decoder(1)
    tasks = Path("/proc/self/task")
    before = len(list(tasks.iterdir()))
    for i in range(30):
        program = decoder.program(1 + i % 3, "auto", 1 + i % 4)
        if i % 2:
            program.run(step_of(1, block_tables=np.zeros((1, 1), np.int32)))
        program.close()
        program.close()
    deadline = time.monotonic() + 10  # a joined thread can stand in /proc for a moment longer
    while len(list(tasks.iterdir())) > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(list(tasks.iterdir())) <= before


def test_the_time_of_a_run_is_shared_out_over_its_operations() -> None:
    decoder = Decoder(1)
    with_threads = decoder.program(1, "auto", 2)
    step = step_of(1, logit_rows=np.zeros(1, np.int32))
    with_threads.run(step, np.zeros((1, VOCAB), np.float32))
    times = with_threads.time_operations()
    start = time.perf_counter_ns()
    for _ in range(3):
        with_threads.run(step, np.zeros((1, VOCAB), np.float32))
    whole = time.perf_counter_ns() - start
    assert (times > 0).all()
    assert times.sum() < whole
    before = times.copy()
    with_threads.run(step, last=1)
    assert times[0] > before[0]
    assert np.array_equal(times[1:], before[1:])
    with_threads.close()


def test_the_automatic_choice_is_a_kernel_of_this_machine_and_stays() -> None:
    """Which of two it measures to be faster may depend on the moment; within a process it is one of them."""
    op, shape = native.Op(OpCode.GATHER, (0,), (1,)), native.Shape(max_rows=1, **NO_CACHE)
    found = set()
    for _ in range(3):
        step = open_step([op], [], [float_buffer(8, 0), float_buffer(8, 1)], shape, threads=1, kernel="auto")
        found.add(step.program.kernel)
        step.close()
    assert len(found) == 1
    assert found <= set(KERNELS[1:] or KERNELS)
