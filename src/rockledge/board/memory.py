"""What fits on a board: one plan splits its RAM between system, weights, KV cache, arena and NPU buffers.

Behind `--fit BOARD`: the plan without weights says how many bytes are left for them. Everything is modelled.
"""

from dataclasses import dataclass
from typing import Protocol

from rockledge.board.boards import Board
from rockledge.errors import BudgetError


class DecoderShape(Protocol):
    """The sizes of a decoder that memory depends on (any model config has them). All are element counts."""

    @property
    def hidden(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def kv_heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def ffn(self) -> int: ...
    @property
    def vocab(self) -> int: ...


@dataclass(frozen=True)
class MemoryPlan:
    """One board, one model, one context: bytes by use. `weights_bytes` is the budget (or the given weights);
    `npu_buffers_bytes` is what the NPU may use, never above its address window."""

    board: str
    context: int
    ram_bytes: int
    reserved_bytes: int
    kv_bytes: int
    arena_bytes: int
    npu_buffers_bytes: int
    weights_bytes: int
    basis: str = "modelled"

    @property
    def free_bytes(self) -> int:
        """RAM that nothing in this plan uses."""
        working = self.kv_bytes + self.arena_bytes + self.npu_buffers_bytes
        return self.ram_bytes - self.reserved_bytes - working - self.weights_bytes


def kv_bytes(shape: DecoderShape, tokens: int) -> int:
    """Bytes of the KV cache for `tokens`: int8 keys and values, and their fp32 scales per token and head."""
    return tokens * shape.layers * shape.kv_heads * 2 * (shape.head_dim + 4)


def arena_bytes(shape: DecoderShape, rows: int) -> int:
    """Bytes of activations for steps of up to `rows` tokens: residual, its normed copy, q|k|v, attention
    output and gate|up in fp32, two int8 planes of the widest input, and one row of logits."""
    attention = shape.heads * shape.head_dim
    floats = 2 * shape.hidden + (attention + 2 * shape.kv_heads * shape.head_dim) + attention + 2 * shape.ffn
    planes = 2 * max(shape.hidden, attention, shape.ffn)
    return rows * (4 * floats + planes) + 4 * shape.vocab


def plan_memory(
    board: Board, shape: DecoderShape, context: int, *, weights_bytes: int | None = None, step_rows: int = 512
) -> MemoryPlan:
    """Splits the board's RAM. With `weights_bytes` None the weights get all that is left beside the smallest
    NPU buffers; otherwise the NPU buffers grow into what the weights leave. `context` and `step_rows` in
    tokens. BudgetError says by how much it does not fit, and the longest context that would."""
    reserved = int(sum(board.value(f) for f in ("firmware_reserve", "os_reserve", "process_reserve")))
    kv = kv_bytes(shape, context)
    arena = arena_bytes(shape, step_rows)
    least_npu = int(board.value("npu_buffers_least"))
    left = board.ram_bytes - reserved - kv - arena - least_npu
    weights = left if weights_bytes is None else weights_bytes
    if left <= 0 or weights > left:
        per_token = kv_bytes(shape, 1)
        longest = (left + kv - (weights_bytes or 0)) // per_token
        advice = (
            f"the longest context that leaves room is {longest} tokens"
            if longest > 0
            else "take a smaller model, fewer bits or a board with more memory"
        )
        raise BudgetError(
            f"{max(weights, 0) / 1e9:.2f} GB of weights with a context of {context} tokens do not fit on "
            f"{board.name}, {(max(weights, 0) - left) / 1e9:.2f} GB are missing; {advice}"
        )
    npu = least_npu + min(left - weights, int(board.value("npu_buffers_most")) - least_npu)
    return MemoryPlan(
        board=board.name,
        context=context,
        ram_bytes=board.ram_bytes,
        reserved_bytes=reserved,
        kv_bytes=kv,
        arena_bytes=arena,
        npu_buffers_bytes=npu,
        weights_bytes=weights,
    )


def weight_budget(board: Board, shape: DecoderShape, context: int, *, step_rows: int = 512) -> int:
    """Bytes that all tensors of an artifact may take on `board` at `context` tokens. BudgetError if none."""
    return plan_memory(board, shape, context, step_rows=step_rows).weights_bytes
