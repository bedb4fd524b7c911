"""Probes as programs of the native core: what is timed is what steps of a model run, without a model."""

from collections.abc import Callable
from contextlib import ExitStack

import numpy as np

from rockledge.board_calibration.probes import (
    HADAMARD,
    HEADS,
    KV_HEADS,
    Attends,
    Linears,
    Operation,
    RowOperation,
)
from rockledge.board_calibration.weights import UInt8, bands
from rockledge.runtime import native
from rockledge.runtime.native import BufferKind, Op, OpCode
from rockledge.runtime.native_step import Batch, Step

_PAGE_TOKENS = 32
_EPSILON = 1e-5

Run = Callable[[], None]
Prepare = Callable[[ExitStack], Run]
"""Gives a call that does the work once; what it holds is let go of with the stack. Prepared anew for every
repeat: threads that a busy system has put onto one core would stay there."""


def linears(probe: Linears, data: UInt8) -> Prepare:
    """Linears over weights in `data`."""
    different = probe.count if probe.place == "memory" else 1
    listed = bands(data, probe.bits, probe.outputs, probe.inputs, different)
    ops = [
        Op(OpCode.LINEAR, (0, 1), (2,), first_band=number % different, bands=1)
        for number in range(probe.count)
    ]
    buffers = [
        native.Buffer(BufferKind.INT8, probe.inputs, 0),
        native.Buffer(BufferKind.FLOAT, 1, 1),
        native.Buffer(BufferKind.FLOAT, probe.outputs, 2),
    ]
    shape = native.Shape(probe.rows, heads=1, kv_heads=1, head_dim=8, page_tokens=16, context=0, pools=())
    program = native.Program(ops, listed, buffers, shape)
    return _prepare(program, probe.threads, _rows(probe.rows, 0, 1), 0)


def row_operation(probe: RowOperation) -> Prepare:
    """What a layer does between its linears."""
    if probe.kind == "rope":
        ops, buffers, shape = _attention_program(probe.width // HEADS, probe.rows, probe.rows, probe.count, 0)
        return _prepare(
            native.Program(ops, [], buffers, shape),
            probe.threads,
            _rows(probe.rows, 0, _pages(probe.rows)),
            0,
        )
    width = probe.width
    buffers = [
        native.Buffer(BufferKind.FLOAT, 2 * width if probe.kind == "gate" else width, 0),
        native.Buffer(BufferKind.FLOAT, width, 1)
        if probe.kind == "norm"
        else native.Buffer(BufferKind.INT8, width, 1),
        native.Buffer(BufferKind.FLOAT, 1, 2),
    ]
    shape = native.Shape(probe.rows, heads=1, kv_heads=1, head_dim=8, page_tokens=16, context=0, pools=())
    program = native.Program([_row_op(probe.kind)] * probe.count, [], buffers, shape)
    return _prepare(program, probe.threads, _rows(probe.rows, 0, 1), 0)


def _row_op(kind: Operation) -> Op:
    if kind == "norm":
        return Op(OpCode.NORM, (0,), (1,), real=(_EPSILON,), weight=(None,))
    if kind == "gate":
        return Op(OpCode.GATED_QUANT, (0,), (1, 2), dim=(0, native.Activation.SILU))
    return Op(OpCode.QUANT, (0,), (1, 2), dim=(HADAMARD if kind == "hadamard" else 0,))


def attends(probe: Attends) -> Prepare:
    """Attention over keys and values that are there."""
    context = probe.after + probe.rows
    most = max(probe.rows, 128)
    ops, buffers, shape = _attention_program(probe.head_dim, most, context, 1, probe.count)
    program = native.Program(ops, [], buffers, shape)
    pages = _pages(context)

    def prepare(stack: ExitStack) -> Run:
        step = Step(program, threads=probe.threads)
        stack.callback(step.close)
        step.buffer(0)[:] = np.random.default_rng(0).normal(0, 1.5, step.buffer(0).shape)
        for first in range(0, context, most):
            step.run(_rows(min(most, context - first), first, pages), first=0, last=1)
        batch = _rows(probe.rows, probe.after, pages)
        step.run(batch, first=0, last=1)
        return step.prepare(batch, first=1, last=1 + probe.count)

    return prepare


def _attention_program(
    head_dim: int, rows: int, context: int, writes: int, reads: int
) -> tuple[list[Op], list[native.Buffer], native.Shape]:
    """Keys and values written `writes` times, then attention `reads` times, over one layer's cache."""
    inner, scale = HEADS * head_dim, head_dim**-0.5
    widths = ((HEADS + 2 * KV_HEADS) * head_dim, inner, HEADS, inner)
    kinds = (BufferKind.FLOAT, BufferKind.INT8, BufferKind.FLOAT, BufferKind.FLOAT)
    buffers = [
        native.Buffer(kind, width, slot) for slot, (kind, width) in enumerate(zip(kinds, widths, strict=True))
    ]
    turns = (1e4 ** (-np.arange(0, head_dim, 2) / head_dim)).astype(np.float32)
    write = Op(
        OpCode.ROPE_KV, (0,), (1, 2), dim=(0, 0, head_dim), real=(_EPSILON, 1.0, scale), weight=(turns,)
    )
    attend = Op(OpCode.ATTENTION, (1, 2), (3,), dim=(0, 0), real=(scale,), weight=(turns,))
    pages = _pages(context)
    shape = native.Shape(
        rows, HEADS, KV_HEADS, head_dim, _PAGE_TOKENS, pages * _PAGE_TOKENS, (native.Pool(1, pages),)
    )
    return [write] * writes + [attend] * reads, buffers, shape


def _pages(tokens: int) -> int:
    return -(-tokens // _PAGE_TOKENS)


def _rows(rows: int, first: int, pages: int) -> Batch:
    """Rows of one sequence from position `first` on."""
    zeros = np.zeros(rows, np.int32)
    return Batch(
        zeros, np.arange(first, first + rows, dtype=np.int32), zeros, np.arange(pages, dtype=np.int32)[None]
    )


def _prepare(program: native.Program, threads: int, batch: Batch, filled: int) -> Prepare:
    def prepare(stack: ExitStack) -> Run:
        step = Step(program, threads=threads)
        stack.callback(step.close)
        numbers = np.random.default_rng(1)
        into = step.buffer(filled)
        if into.dtype == np.int8:
            into[:] = numbers.integers(-127, 128, into.shape)
            step.buffer(1)[:] = 0.01
        else:
            into[:] = numbers.normal(0, 1, into.shape)
        return step.prepare(batch)

    return prepare
