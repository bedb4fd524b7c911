"""A board's roofs, and where a planned model stands under them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rockledge.board.boards import Board
from rockledge.board.npu_time import npu_rates
from rockledge.planning.fit import most_streams
from rockledge.planning.plan import Plan


@dataclass(frozen=True)
class Roof:
    """What a processor can do at most: int8 `products` and bytes of memory a second."""

    name: str
    products: float
    bandwidth: float


@dataclass(frozen=True)
class Point:
    """What a model does: int8 products a byte of weights and cache read, and a second."""

    name: str
    intensity: float
    products: float


def roofs(board: Board) -> tuple[Roof, ...]:
    """Those of the CPU and of the NPU where there is one."""
    cpu = board.value("cpu_cores") * board.value("cpu_hz") * board.value("cpu_prefill_macs_per_cycle")
    found = [Roof("CPU", cpu, board.value("cpu_read_bandwidth"))]
    if board.has_npu:
        rates = npu_rates(board)
        found.append(Roof("NPU", rates.cores * rates.macs_per_second, rates.bus_bandwidth))
    return tuple(found)


def points(plan: Plan, streams: Sequence[int], prompts: Sequence[int]) -> Iterator[Point]:
    """Decode with so many streams after half the context, where there is memory for them, and prompts of so
    many tokens."""
    speed = plan.speed
    most = most_streams(plan.board, plan.config, plan.room.weights, plan.context)
    for count in (count for count in streams if plan.writes and count <= max(most, 1)):
        step = speed.decoding(plan.context // 2, count)
        products = speed.products(count, count)
        yield Point(
            f"decode, {count}",
            products / step.bytes_per_token,
            products * step.decode_tok_s,
        )
    for tokens in prompts:
        if tokens <= plan.context and plan.budget is not None:
            time = speed.prompt(tokens)
            products = speed.products(tokens, 1)
            yield Point(f"prompt of {tokens}", products / speed.read_bytes, products / time.seconds)
