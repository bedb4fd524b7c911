"""A small program of linears, and a plan that sends them to an open NPU in any way that the core allows."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from tests.native.one_op import (
    NO_CACHE,
    float_buffer,
    int8_buffer,
    native_bands,
    open_step,
    random_linear,
    step_of,
)

from rockledge.formats.packing import unpack
from rockledge.npu.layout import INT8, pack_kernels, pad, padded
from rockledge.npu.programs.matmul import compile_matmul
from rockledge.npu.programs.tile_program import INPUT, OUTPUT, SCRATCH
from rockledge.npu.programs.tile_search import DEFAULT_RATES, plan
from rockledge.npu.programs.tiling import Reuse, Sums
from rockledge.runtime import native
from rockledge.runtime.native import OpCode
from rockledge.runtime.npu_device import Buffer, NpuDevice
from rockledge.runtime.offload.native_plan import (
    ROLES,
    BufferPlace,
    OffloadLinear,
    OffloadPlan,
    OffloadShape,
    StepSize,
)

HIDDEN, WIDE, FFN, VOCAB, LAYERS = 80, 197, 144, 41, 2
X, Q, SX, A, QA, SA, GU, QF, SF, LAST, QL, SL, NORMED = range(13)
NOTHING = np.int16(-999)
# Every code width, bands within a lane and across lanes, a last strip of five rows.
BANDS = {
    "wide": [(24, 8), (72, 4), (48, 3), (40, 2), (13, 4)],
    "back": [(48, 3), (32, 4)],
    "gate_up": [(56, 3), (88, 8), (104, 2), (40, 4)],
    "down": [(72, 4), (8, 8)],
}


class Toy:
    """Embedding, then layers of norm, quantise, linear, quantise, linear, norm, linear, gated activation,
    linear, norm: with blocks of a Hadamard where they fit, adding once with a norm and once without."""

    def __init__(self, planes: int) -> None:
        rng = np.random.default_rng(planes)
        self.bands: list[native.Band] = []
        self.ops: list[native.Op] = []
        self.weights: dict[int, np.ndarray] = {}  # int8 [outputs, inputs] of an operation
        self.inner = {"normed": planes, "wide": 3 - planes, "ffn": planes}
        self.buffers = [
            float_buffer(HIDDEN, X),
            int8_buffer(HIDDEN, Q, self.inner["normed"]),
            float_buffer(1, SX),
            float_buffer(WIDE, A),
            int8_buffer(WIDE, QA, self.inner["wide"]),
            float_buffer(1, SA),
            float_buffer(2 * FFN, GU),
            int8_buffer(FFN, QF, self.inner["ffn"]),
            float_buffer(1, SF),
            float_buffer(HIDDEN, LAST),
            int8_buffer(HIDDEN, QL),
            float_buffer(1, SL),
            float_buffer(HIDDEN, NORMED),
        ]
        head = self._bands(rng, HIDDEN, [(VOCAB, 4)])
        self._op(OpCode.EMBED, (), (X,), real=(1.0,), **head)
        for _ in range(LAYERS):
            self._op(OpCode.NORM, (X,), (NORMED,), real=(1e-5,))
            self._op(OpCode.QUANT, (NORMED,), (Q, SX), dim=(8,))
            self._linear(rng, (Q, SX), A, HIDDEN, "wide", bias=True)
            self._op(OpCode.QUANT, (A,), (QA, SA))
            self._linear(rng, (QA, SA, X), X, WIDE, "back")
            self._op(OpCode.NORM_QUANT, (X,), (Q, SX), dim=(16,), real=(1e-5,))
            self._linear(rng, (Q, SX), GU, HIDDEN, "gate_up")
            self._op(OpCode.GATED_QUANT, (GU,), (QF, SF), dim=(16, native.Activation.GELU_TANH))
            self._linear(rng, (QF, SF), NORMED, FFN, "down")
            self._op(OpCode.NORM_ADD, (NORMED, X), (X,), real=(1e-5,))
        self._op(OpCode.GATHER, (X,), (LAST,))
        self._op(OpCode.NORM_QUANT, (LAST,), (QL, SL), on_logits=True, real=(1e-5,))
        self._op(OpCode.LINEAR, (QL, SL), (native.STEP_LOGITS,), on_logits=True, **head)

    def _bands(self, rng, cols, bands, bias=False):
        first = len(self.bands)
        packed = random_linear(rng, cols, bands, bias)
        self._last = unpack(packed)
        self.bands += native_bands(packed)
        return {"first_band": first, "bands": len(self.bands) - first}

    def _linear(self, rng, inputs, out, cols, name, bias=False):
        self._op(OpCode.LINEAR, inputs, (out,), **self._bands(rng, cols, BANDS[name], bias))
        self.weights[len(self.ops) - 1] = self._last

    def _op(self, code, inputs, outputs, **fields):
        self.ops.append(native.Op(code, inputs, outputs, **fields))

    def planes_of(self, op):
        return self.buffers[self.ops[op].inputs[0]].planes

    def program(self, rows, threads=1, kernel="auto"):
        shape = native.Shape(rows, **NO_CACHE)
        return open_step(self.ops, self.bands, self.buffers, shape, threads=threads, kernel=kernel)

    def run(self, program, rows, seed=0, first=0, last=-1):
        """Hidden states fp32 [rows, HIDDEN] and logits of a step of so many random tokens."""
        tokens = np.random.default_rng(seed).integers(0, VOCAB, rows).astype(np.int32)
        logits = np.zeros((rows, VOCAB), np.float32)
        wanted = np.arange(rows, dtype=np.int32)
        program.run(step_of(rows, tokens=tokens, logit_rows=wanted), logits, first, last)
        return np.concatenate([program.buffer(X)[:rows], logits], axis=1)


@dataclass(frozen=True)
class Cut:
    """How a plan cuts the linears. `slots`: 0 for one for each block, else so many in turns."""

    rows: tuple[int, ...] = (8, 20)
    columns: int = 32
    parts: int = 1
    sums: Sums = Sums.SINGLE
    tile_rows: int = 12
    slots: int = 0
    lanes: int = 3
    from_rows: int = 5
    timeout_ms: int = 2000


class Offloaded:
    """A plan for `toy` over buffers and programs of `device`; `slots` and `inputs` are its memory."""

    def __init__(self, device: NpuDevice, toy: Toy, cut: Cut) -> None:
        self._device, self._toy, self._cut = device, toy, cut
        self._spaces = device.describe().spaces
        kinds = list(dict.fromkeys(map(self._kind, toy.weights)))
        matmuls = {kind: self._matmuls(*kind) for kind in kinds}
        most = {
            role: max(m.launches[0].sizes[role] for sizes in matmuls.values() for m in sizes)
            for role in (INPUT, OUTPUT, SCRATCH)
        }
        linears = tuple(
            OffloadLinear(op, kinds.index(self._kind(op)), -(-len(w) // (cut.lanes * cut.columns)))
            for op, w in toy.weights.items()
        )
        self.block_of = [(linear.op, b) for linear in linears for b in range(linear.blocks)]
        slots = cut.slots or len(self.block_of)
        slot_bytes = cut.columns * max(inputs for inputs, _ in kinds)
        self.slots = [[self._allocate(slot_bytes, lane) for lane in range(cut.lanes)] for _ in range(slots)]
        self.inputs = [
            self._allocate(most[INPUT], lane) for lane in range(cut.lanes if self._spaces > 1 else 1)
        ]
        self.plan = OffloadPlan(
            lanes=cut.lanes,
            from_rows=cut.from_rows,
            timeout_ms=cut.timeout_ms,
            shapes=tuple(self._shape(*kind, matmuls[kind]) for kind in kinds),
            linears=linears,
            block_slot=tuple(number % slots for number in range(len(self.block_of))),
            slots=tuple(tuple(map(BufferPlace, slot)) for slot in self.slots),
            inputs=tuple(BufferPlace(self.inputs[lane % len(self.inputs)]) for lane in range(cut.lanes)),
            outputs=tuple(self._places(most[OUTPUT]) for _ in range(2)),
            scratch=self._places(most[SCRATCH]) if most[SCRATCH] else (),
        )

    def expected_slot(self, block: int, lane: int) -> np.ndarray:
        """The weights of a lane as NumPy packs them, int16; NOTHING where the linear has none."""
        op, number = self.block_of[block]
        weights, cut = self._toy.weights[op], self._cut
        inputs = self._kind(op)[0]
        first = (number * cut.lanes + lane) * cut.columns
        shape = self.plan.shapes[next(one.shape for one in self.plan.linears if one.op == op)]
        known = padded(len(weights), 8)  # rows of whole strips
        rows = pad(weights, max(known, first + cut.columns), inputs)[first : first + cut.columns]
        there = np.zeros(rows.shape, np.int8)
        there[: max(0, min(len(weights), first + cut.columns) - first), : weights.shape[1]] = 1
        starts = shape.part_starts

        def packed(x):
            return np.concatenate([pack_kernels(x[:, a:b], INT8) for a, b in pairwise(starts)])

        return np.where(packed(there) == 1, packed(rows).astype(np.int16), NOTHING)

    def _kind(self, op):
        return padded(self._toy.weights[op].shape[1], 32), self._toy.planes_of(op)

    def _matmuls(self, inputs, planes):
        cut = self._cut
        rates = replace(DEFAULT_RATES, cores=1)
        parts = min(cut.parts, inputs // 32)
        # Mainline starts one program at a time: nothing stays in the buffer.
        stays = None if self._spaces == 1 else Reuse.NONE
        found = []
        for rows in cut.rows:
            tiling = plan(
                rows * planes, cut.columns, inputs, rates=rates, parts=parts, tile_rows=cut.tile_rows,
                sums=cut.sums if parts > 1 else None, stays=stays,
            )  # fmt: skip
            found.append(compile_matmul(tiling))
        return found

    def _shape(self, inputs, planes, matmuls):
        cut = self._cut
        parts = matmuls[0].tiling.input_parts
        sizes = []
        for rows, matmul in zip(cut.rows, matmuls, strict=True):
            tiling = matmul.tiling
            (chain,) = [chain for chain in matmul.launches[0].chains if chain is not None]
            first, second = (tuple(self._load(chain, lane) for lane in range(cut.lanes)) for _ in range(2))
            starts = (*(tile.start for tile in tiling.row_tiles), tiling.padded_rows)
            sums = len(parts) if tiling.sums is Sums.HOST else 1
            sizes.append(StepSize(rows, sums, starts, (first, second)))
        starts = (*(part.start for part in parts), inputs)
        return OffloadShape(inputs, planes, cut.columns, starts, tuple(sizes))

    def _load(self, chain, lane):
        return self._device.load(chain, self._allocate(chain.size_bytes + 16, lane), 0, ROLES)

    def _places(self, size):
        return tuple(BufferPlace(self._allocate(size, lane)) for lane in range(self._cut.lanes))

    def _allocate(self, size: int, lane: int) -> Buffer:
        return self._device.allocate(size, lane if self._spaces > 1 else 0)
