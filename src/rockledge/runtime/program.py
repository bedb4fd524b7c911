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
from rockledge.board.memory import LOGIT_ROWS, PAGE_TOKENS, SEQUENCES, padded_head, pages_of, pool_pages
from rockledge.formats.bands import padded
from rockledge.formats.hadamard import Rotation
from rockledge.formats.key_bias import split_bias
from rockledge.formats.packing import PackedLinear
from rockledge.model.block import Attention, Branch, Decoder, Gated, Group, decoder, layer_name, windows
from rockledge.model.config import ModelConfig
from rockledge.model.rope import Rope, inverse_frequencies
from rockledge.runtime.arena import ArenaPlan, plan_arena
from rockledge.runtime.native import (
    STEP_LOGITS,
    Activation,
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
        drawn = 0 if c.headless else min(max_rows, LOGIT_ROWS)
        return Shape(max_rows, c.heads, c.kv_heads, c.head_dim, PAGE_TOKENS, positions, pools, drawn)

    def memory(self, max_rows: int, context: int, threads: int) -> ProgramMemory:
        """What the core takes besides the weights for a program whose largest steps have `max_rows` rows.
        Raises NativeError."""
        return self._outline.memory(self.shape(max_rows, context, self.pools(context, max_rows)), threads)

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


def build_program(artifact: Artifact, context: int = 0) -> ProgramPlan:
    """The operations of `artifact`, from token ids to logits, or to normed states where there is no head.

    They are for sequences of up to `context` tokens (0: of the model's original length, which matters where
    the rotary embedding is stretched beyond it).
    """
    builder = _Builder(artifact, decoder(artifact.config), context)
    x = builder.embed()
    for number, layer in enumerate(builder.tree.layers):
        for branch in layer.branches:
            builder.branch(x, number, branch)
    if builder.tree.headless:
        builder.states(x)
    else:
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
    tree: Decoder
    context: int
    ops: list[Op] = field(default_factory=list)
    bands: list[Band] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    _numbers: dict[tuple[str, int, int], int] = field(default_factory=dict)
    _frequencies: dict[Rope, Float32] = field(default_factory=dict)
    _place: dict[int, tuple[int, int]] = field(
        init=False
    )  # of each layer, (its number in its pool, the pool)

    def __post_init__(self) -> None:
        self._place = {
            layer: (number, pool)
            for pool, (_, layers) in enumerate(windows(self.tree))
            for number, layer in enumerate(layers)
        }

    def embed(self) -> int:
        """The residual stream; turned back where the rows are stored turned and it is not."""
        rotation = None if self.tree.residual_turns else self.artifact.rotation
        x = self._floats("x", self.tree.hidden)
        rows = x if rotation is None else self._floats("x.turned", self.tree.hidden)
        first, count = self._bands([(self._linear(self.tree.embed.role), 0)])
        scale = (self.tree.embedding_scale,)
        self.ops.append(Op(OpCode.EMBED, (), (rows,), first_band=first, bands=count, real=scale))
        if rotation is not None:
            self.ops.append(self._rotated(rows, x, rotation, inverse=True))
        return x

    def branch(self, x: int, layer: int, branch: Branch) -> None:
        """x + after(body(before(x))); the gain of `before` and the multiplier are folded into weights."""
        body = branch.body
        of_input, of_output = body.groups
        normed = self._quantised("normed", self.tree.hidden, self._planes(layer, of_input))
        turned = (self.artifact.online.get(of_input.place, 0),)
        if branch.before is None:
            self.ops.append(Op(OpCode.QUANT, (x,), normed, dim=turned))
        else:
            kept = branch.before in branch.kept_norms
            gain = self._array(layer_name(layer, branch.before.role)) if kept else None
            self.ops.append(
                Op(OpCode.NORM_QUANT, (x,), normed, dim=turned, real=(self.tree.norm_eps,), weight=(gain,))
            )
        if isinstance(body, Attention):
            values = self._attention(normed, layer, body)
        else:
            values = self._gated(normed, layer, body)
        (last,) = of_output.linears
        linear = [(self._linear(layer_name(layer, last.role)), 0)]
        if branch.after is None:
            self._multiply((*values, x), linear, x)
        else:
            added = self._floats("branch", self.tree.hidden)
            self._multiply(values, linear, added)
            gain = self._array(layer_name(layer, branch.after.role))
            self.ops.append(Op(OpCode.NORM_ADD, (added, x), (x,), real=(self.tree.norm_eps,), weight=(gain,)))

    def _attention(self, normed: tuple[int, int], layer: int, body: Attention) -> tuple[int, int]:
        query, key = body.q.rows, body.k.rows
        q, k, v = (self._linear(layer_name(layer, linear.role)) for linear in (body.q, body.k, body.v))
        score_bias = None
        # The core turns this bias, times the factor; what does not turn, or a norm divides, stays in keys.
        if k.bias is not None and body.rope is not None and body.k_norm is None:
            kept, score_bias = split_bias(k.bias, body.head_dim, body.rope.turned)
            k = replace(k, bias=kept)
        qkv = self._floats("qkv", query + 2 * key)
        self._multiply(normed, [(q, 0), (k, query), (v, query + key)], qkv)
        queries = [
            self._int8("q8", body.heads * padded_head(body.head_dim), 1),
            self._floats("q8.scale", body.heads),
        ]
        if score_bias is not None:
            queries.append(self._floats("score_terms", query))
        gains = [
            None if norm is None else self._array(layer_name(layer, norm.role))
            for norm in (body.q_norm, body.k_norm)
        ]
        rope, whole = body.rope, body.q_norm is not None and body.q_norm.over > body.head_dim
        frequencies = None if rope is None else self._frequencies_of(rope)
        scale = _scale(body)
        self.ops.append(
            Op(
                OpCode.ROPE_KV,
                (qkv,),
                tuple(queries),
                dim=(*self._place[layer], rope.turned if rope else 0, int(whole)),
                real=(
                    self.tree.norm_eps,
                    rope.factor if rope else 1.0,
                    scale,
                    body.growth,
                    float(body.growth_length),
                ),
                weight=(frequencies, *gains, score_bias),
            )
        )
        mixed = self._floats("mixed", query)
        self.ops.append(
            Op(
                OpCode.ATTENTION,
                tuple(queries),
                (mixed,),
                dim=self._place[layer],
                real=(scale, body.softcap),
                weight=(frequencies, None, None, score_bias),
            )
        )
        group = body.groups[1]
        quantised = self._quantised("mixed", query, self._planes(layer, group))
        online = self.artifact.online.get(group.place, 0)
        self.ops.append(Op(OpCode.QUANT, (mixed,), quantised, dim=(online,)))
        return quantised

    def _gated(self, normed: tuple[int, int], layer: int, body: Gated) -> tuple[int, int]:
        width = body.gate.rows
        gate_up = self._floats("gate_up", 2 * width)
        linears = [self._linear(layer_name(layer, linear.role)) for linear in (body.gate, body.up)]
        self._multiply(normed, [(linears[0], 0), (linears[1], width)], gate_up)
        group = body.groups[1]
        quantised = self._quantised("ffn", width, self._planes(layer, group))
        dim = (self.artifact.online.get(group.place, 0), Activation[body.activation.upper()])
        self.ops.append(Op(OpCode.GATED_QUANT, (gate_up,), quantised, dim=dim))
        return quantised

    def logits(self, x: int) -> None:
        """Final norm and head. The gain of the norm is folded into an untied head; a tied one needs it here,
        in the plain basis, so where the stream is turned the normed row goes back, is scaled, and forward
        again. The input of a head that is stored turned must be turned as it is."""
        tree, rotation = self.tree, self.artifact.rotation
        head, eps = tree.head.role, (tree.norm_eps,)
        gain = self._array(tree.final_norm.role) if tree.keeps_final_gain else None
        last = self._floats("last", tree.hidden)
        self.ops.append(Op(OpCode.GATHER, (x,), (last,), on_logits=True))
        quantised = self._quantised("last", tree.hidden, self.artifact.planes(head))
        if rotation is None or (gain is None and tree.residual_turns):
            self.ops.append(Op(OpCode.NORM_QUANT, (last,), quantised, True, real=eps, weight=(gain,)))
        else:
            normed, turned = (self._floats(f"last.{name}", tree.hidden) for name in ("normed", "plain"))
            if tree.residual_turns:
                self.ops += [
                    Op(OpCode.NORM, (last,), (normed,), True, real=eps, weight=(None,)),
                    self._rotated(normed, turned, rotation, inverse=True, gain=gain, on_logits=True),
                ]
                normed, turned = turned, normed
            else:
                self.ops.append(Op(OpCode.NORM, (last,), (normed,), True, real=eps, weight=(gain,)))
            self.ops += [
                self._rotated(normed, turned, rotation, inverse=False, on_logits=True),
                Op(OpCode.QUANT, (turned,), quantised, True),
            ]
        first, count = self._bands([(self._linear(head), 0)])
        self.ops.append(Op(OpCode.LINEAR, quantised, (STEP_LOGITS,), True, first_band=first, bands=count))
        if tree.logit_scale != 1.0 or tree.logit_softcap:
            scaled = (tree.logit_scale, tree.logit_softcap)
            self.ops.append(Op(OpCode.LOGITS, (), (STEP_LOGITS,), True, real=scaled))

    def states(self, x: int) -> None:
        """Final norm with its gain, in the plain basis: the result of a model without a head."""
        tree, rotation = self.tree, self.artifact.rotation
        gain, eps = self._array(tree.final_norm.role), (tree.norm_eps,)
        last = self._floats("last", tree.hidden)
        self.ops.append(Op(OpCode.GATHER, (x,), (last,), on_logits=True))
        if rotation is None or not tree.residual_turns:
            self.ops.append(Op(OpCode.NORM, (last,), (STEP_LOGITS,), True, real=eps, weight=(gain,)))
            return
        normed = self._floats("last.normed", tree.hidden)
        self.ops += [
            Op(OpCode.NORM, (last,), (normed,), True, real=eps, weight=(None,)),
            self._rotated(normed, STEP_LOGITS, rotation, inverse=True, gain=gain, on_logits=True),
        ]

    @staticmethod
    def _rotated(
        x: int,
        y: int,
        rotation: Rotation,
        *,
        inverse: bool,
        gain: Float32 | None = None,
        on_logits: bool = False,
    ) -> Op:
        signs = np.ascontiguousarray(rotation.signs, dtype=np.float32)
        mix = np.ascontiguousarray(rotation.mix, dtype=np.float32)
        return Op(
            OpCode.ROTATE,
            (x,),
            (y,),
            on_logits,
            dim=(rotation.block, rotation.odd, int(inverse)),
            weight=(signs, mix, gain),
        )

    def _multiply(
        self, inputs: tuple[int, ...], linears: Sequence[tuple[PackedLinear, int]], out: int
    ) -> None:
        first, count = self._bands(linears)
        self.ops.append(Op(OpCode.LINEAR, inputs, (out,), first_band=first, bands=count))

    def _bands(self, linears: Sequence[tuple[PackedLinear, int]]) -> tuple[int, int]:
        first = len(self.bands)
        for linear, column in linears:
            self.bands.extend(band_views(linear, column))
        return first, len(self.bands) - first

    def _linear(self, name: str) -> PackedLinear:
        return self.artifact.linear(name)

    def _planes(self, layer: int, group: Group) -> int:
        """Of the input that a group shares; an artifact gives all its linears the same."""
        return self.artifact.planes(layer_name(layer, group.first.role))

    def _quantised(self, role: str, width: int, planes: int) -> tuple[int, int]:
        return self._int8(f"{role}.int8", width, planes), self._floats(f"{role}.scale", 1)

    def _frequencies_of(self, rope: Rope) -> Float32:
        """One array for all layers that turn alike: the core computes the angles of a step once for each."""
        if rope not in self._frequencies:
            self._frequencies[rope] = inverse_frequencies(rope, self.context)
        return self._frequencies[rope]

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


def _scale(body: Attention) -> float:
    """What scores are multiplied by, rounded as 1 / sqrt(head_dim) always was, in single precision."""
    if body.scale == body.head_dim**-0.5:
        return float(np.float32(1) / np.sqrt(np.float32(body.head_dim)))
    return body.scale
