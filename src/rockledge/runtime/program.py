"""From an artifact to the flat list of operations that the native core executes.

The list is independent of the board and of the rows of a step: one small struct a step carries those. All
layers use the same few buffers; `arena` decides which of them share memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rockledge.artifact import Artifact
from rockledge.board.memory import PAGE_TOKENS, SEQUENCES, padded_head, pages_of, pool_pages
from rockledge.formats.bands import padded
from rockledge.formats.hadamard import Rotation
from rockledge.formats.key_bias import split_bias
from rockledge.formats.packing import PackedLinear
from rockledge.model.config import ModelConfig
from rockledge.model.rope import inverse_frequencies, rope_of
from rockledge.runtime.arena import ArenaPlan, plan_arena
from rockledge.runtime.native import (
    STEP_LOGITS,
    Band,
    Buffer,
    BufferKind,
    Op,
    OpCode,
    Outline,
    Pool,
    ProgramMemory,
    Shape,
)

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ProgramPlan:
    """Everything the native core copies, except the sizes of steps and of the cache."""

    ops: tuple[Op, ...]
    bands: tuple[Band, ...]
    buffers: tuple[Buffer, ...]
    arena: ArenaPlan
    config: ModelConfig

    def pools(self, context: int, rows: int, sequences: int = SEQUENCES) -> tuple[Pool, ...]:
        """The pools of the cache for `context` tokens in all, `rows` and `sequences` as for `pool_pages`."""
        return tuple(
            Pool(len(layers), pool_pages(window, context, rows, sequences), window)
            for window, layers in windows(decoder(self.config))
        )

    def shape(self, max_rows: int, context: int, pools: tuple[Pool, ...]) -> Shape:
        """The shape of a program for steps of up to `max_rows` rows, over `pools` of the cache."""
        c, positions = self.config, pages_of(context) * PAGE_TOKENS
        return Shape(max_rows, c.heads, c.kv_heads, c.head_dim, PAGE_TOKENS, positions, pools)

    def memory(self, max_rows: int, context: int, threads: int) -> ProgramMemory:
        """What the core takes besides the weights for a program whose largest steps have `max_rows` rows.
        Raises NativeError."""
        return self._outline.memory(
            self.shape(max_rows, context, self.pools(context, max_rows)), threads
        )

    @cached_property
    def _outline(self) -> Outline:
        return Outline(self.ops, self.bands, self.buffers)

    def step_bytes(self) -> int:
        """Bytes of codes, indices and scales that a step with logits reads; of the embedding it reads rows,
        which are left out."""
        used = {
            number
            for op in self.ops
            if op.code is OpCode.LINEAR
            for number in range(op.first_band, op.first_band + op.bands)
        }
        arrays = ((self.bands[n].codes, self.bands[n].index, self.bands[n].scale) for n in used)
        return sum(array.nbytes for three in arrays for array in three if array is not None)


def band_views(linear: PackedLinear, column: int) -> list[Band]:
    """The bands of `linear` as views of its streams; its first row lands in output column `column`."""
    views = []
    for band, span in zip(linear.bands, linear.spans(), strict=True):
        rows = slice(band.start, band.start + band.rows)
        coded = band.bits < 8
        views.append(
            Band(
                codes=linear.codes[span.codes : span.codes + span.codes_bytes],
                index=linear.index[span.index : span.index + span.index_bytes] if coded else None,
                tables=linear.tables_of(band.bits) if coded else None,
                scale=linear.scale[rows],
                bias=None if linear.bias is None else linear.bias[rows],
                rows=band.rows,
                cols=linear.cols,
                bits=band.bits,
                out_column=column + band.start,
            )
        )
    return views


def build_program(artifact: Artifact) -> ProgramPlan:
    """The operations of `artifact`, from token ids to logits."""
    builder = _Builder(artifact)
    x = builder.embed()
    for layer in range(artifact.config.layers):
        builder.attention(x, layer)
        builder.feed_forward(x, layer)
    builder.logits(x)
    arena = plan_arena(
        [_Access(op) for op in builder.ops], [_row_bytes(buffer) for buffer in builder.buffers]
    )
    buffers = [replace(b, slot=slot) for b, slot in zip(builder.buffers, arena.slots, strict=True)]
    return ProgramPlan(tuple(builder.ops), tuple(builder.bands), tuple(buffers), arena, artifact.config)


def _row_bytes(buffer: Buffer) -> int:
    if buffer.kind is BufferKind.INT8:
        return buffer.planes * padded(buffer.width)
    return 4 * buffer.width


@dataclass(frozen=True)
class _Access:
    """The buffers of an operation; the logits of a step belong to the caller and are not in the arena."""

    op: Op

    @property
    def inputs(self) -> tuple[int, ...]:
        return self.op.inputs

    @property
    def outputs(self) -> tuple[int, ...]:
        return tuple(b for b in self.op.outputs if b != STEP_LOGITS)


@dataclass
class _Builder:
    artifact: Artifact
    ops: list[Op] = field(default_factory=list)
    bands: list[Band] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    frequencies: Float32 = field(init=False)
    _numbers: dict[tuple[str, int, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # One array for all layers: the core computes the angles of a step once for each.
        rope = rope_of(self.config, 0)
        assert rope is not None
        self.frequencies = inverse_frequencies(rope)

    @property
    def config(self) -> ModelConfig:
        return self.artifact.config

    def embed(self) -> int:
        x = self._floats("x", self.config.hidden)
        first, count = self._bands([("embed", 0)])
        self.ops.append(Op(OpCode.EMBED, (), (x,), first_band=first, bands=count, real=(1.0,)))
        return x

    def attention(self, x: int, layer: int) -> None:
        c = self.config
        prefix = f"layers.{layer}.attn"
        query, key = c.heads * c.head_dim, c.kv_heads * c.head_dim
        qkv = self._floats("qkv", query + 2 * key)
        columns = [(f"{prefix}.q", 0), (f"{prefix}.k", query), (f"{prefix}.v", query + key)]
        self._normed_linears(x, columns, qkv)
        queries = [self._int8("q8", c.heads * padded_head(c.head_dim), 1), self._floats("q8.scale", c.heads)]
        gains = [self._array(f"{prefix}.{name}") if c.qk_norm else None for name in ("q_norm", "k_norm")]
        score_bias = None
        if (bias := self.artifact.linear(f"{prefix}.k").bias) is not None:
            score_bias = split_bias(bias, c.head_dim)[1]
            queries.append(self._floats("score_terms", query))
        scale = float(np.float32(1) / np.sqrt(np.float32(c.head_dim)))
        self.ops.append(
            Op(
                OpCode.ROPE_KV,
                (qkv,),
                tuple(queries),
                dim=(layer, 0, c.head_dim),
                real=(c.norm_eps, 1.0, scale),
                weight=(self.frequencies, *gains, score_bias),
            )
        )
        mixed = self._floats("mixed", query)
        weight = (self.frequencies, None, None, score_bias)
        self.ops.append(
            Op(OpCode.ATTENTION, tuple(queries), (mixed,), dim=(layer,), real=(scale,), weight=weight)
        )
        quantised = self._quantised("mixed", query, self.artifact.planes(f"{prefix}.o"))
        self.ops.append(Op(OpCode.QUANT, (mixed,), quantised))
        self._linear((*quantised, x), [(f"{prefix}.o", 0)], x)

    def feed_forward(self, x: int, layer: int) -> None:
        c = self.config
        prefix = f"layers.{layer}.ffn"
        gate_up = self._floats("gate_up", 2 * c.ffn)
        self._normed_linears(x, [(f"{prefix}.gate", 0), (f"{prefix}.up", c.ffn)], gate_up)
        quantised = self._quantised("ffn", c.ffn, self.artifact.planes(f"{prefix}.down"))
        self.ops.append(Op(OpCode.GATED_QUANT, (gate_up,), quantised, dim=(self.artifact.ffn_block,)))
        self._linear((*quantised, x), [(f"{prefix}.down", 0)], x)

    def logits(self, x: int) -> None:
        """Final norm and head. The gain of the norm is folded into an untied head; a tied one needs it here,
        in the unrotated basis, so with a rotation the normed row goes back, is scaled, and forward again."""
        c, rotation = self.config, self.artifact.rotation
        head = "embed" if c.tied else "head"
        gain = self._array("final_norm") if c.tied else None
        last = self._floats("last", c.hidden)
        self.ops.append(Op(OpCode.GATHER, (x,), (last,), on_logits=True))
        quantised = self._quantised("last", c.hidden, self.artifact.planes(head))
        if gain is None or rotation is None:
            self.ops.append(
                Op(OpCode.NORM_QUANT, (last,), quantised, True, real=(c.norm_eps,), weight=(gain,))
            )
        else:
            self._normed_in_plain_basis(last, quantised, rotation, gain)
        first, count = self._bands([(head, 0)])
        self.ops.append(Op(OpCode.LINEAR, quantised, (STEP_LOGITS,), True, first_band=first, bands=count))

    def _normed_in_plain_basis(
        self, last: int, quantised: tuple[int, int], rotation: Rotation, gain: Float32
    ) -> None:
        normed, plain = (self._floats(f"last.{name}", self.config.hidden) for name in ("normed", "plain"))
        signs = np.ascontiguousarray(rotation.signs, dtype=np.float32)
        mix = np.ascontiguousarray(rotation.mix, dtype=np.float32)
        back, forth = ((rotation.block, rotation.odd, inverse) for inverse in (1, 0))
        self.ops += [
            Op(OpCode.NORM, (last,), (normed,), True, real=(self.config.norm_eps,), weight=(None,)),
            Op(OpCode.ROTATE, (normed,), (plain,), True, dim=back, weight=(signs, mix, gain)),
            Op(OpCode.ROTATE, (plain,), (normed,), True, dim=forth, weight=(signs, mix, None)),
            Op(OpCode.QUANT, (normed,), quantised, True),
        ]

    def _normed_linears(self, x: int, linears: Sequence[tuple[str, int]], out: int) -> None:
        """norm + quantise once for all linears that read it (an artifact gives them equal planes)."""
        c = self.config
        quantised = self._quantised("normed", c.hidden, self.artifact.planes(linears[0][0]))
        # The gains of the norms inside the layers are folded into these very matrices.
        self.ops.append(Op(OpCode.NORM_QUANT, (x,), quantised, real=(c.norm_eps,), weight=(None,)))
        self._linear(quantised, linears, out)

    def _linear(self, inputs: tuple[int, ...], linears: Sequence[tuple[str, int]], out: int) -> None:
        first, count = self._bands(linears)
        self.ops.append(Op(OpCode.LINEAR, inputs, (out,), first_band=first, bands=count))

    def _quantised(self, role: str, width: int, planes: int) -> tuple[int, int]:
        return self._int8(f"{role}.int8", width, planes), self._floats(f"{role}.scale", 1)

    def _bands(self, linears: Sequence[tuple[str, int]]) -> tuple[int, int]:
        first = len(self.bands)
        for name, column in linears:
            linear = self.artifact.linear(name)
            if name.endswith(".attn.k") and linear.bias is not None:
                linear = replace(linear, bias=split_bias(linear.bias, self.config.head_dim)[0])
            self.bands.extend(band_views(linear, column))
        return first, len(self.bands) - first

    def _array(self, name: str) -> Float32:
        return np.ascontiguousarray(self.artifact.array(name), dtype=np.float32)

    def _floats(self, role: str, width: int) -> int:
        return self._buffer(role, BufferKind.FLOAT, width, 1)

    def _int8(self, role: str, width: int, planes: int) -> int:
        return self._buffer(role, BufferKind.INT8, width, planes)

    def _buffer(self, role: str, kind: BufferKind, width: int, planes: int) -> int:
        """The number of the buffer for `role`; every layer asks for the same ones."""
        key = (role, width, planes)
        if key not in self._numbers:
            self._numbers[key] = len(self.buffers)
            self.buffers.append(Buffer(kind, width, slot=-1, planes=planes))
        return self._numbers[key]
