"""The time of the NPU: bytes over the bus, products over the MAC arrays, dispatch. Plain numbers in, out.

    a product   = program and activation bytes / core's share
                  + max(products, weight and sum bytes / core's share)        two kernel groups fit the buffer
                  + products + weight and sum bytes / core's share            only one does
    an addition = program bytes and 12 bytes an element / core's share
    a kick      = dispatch + max(the slowest core, all bytes of the kick / bus)

A core's share is its own read rate, or an equal part of the bus where that is less. There is no factor for
efficiency anywhere: what a board does worse is a fact about the board. Everything is modelled.

Inferred, not documented: activations are loaded before the products start (a tile has to be whole in its
banks), and weights stream behind them only where the weight banks hold two groups of 32 kernels.
"""

from dataclasses import dataclass

from rockledge.board.boards import Board

SUM_BYTES = 4
ADDITION_BYTES = 3 * SUM_BYTES
"""An addition on the NPU reads the result and the scratch plane and writes the result."""


@dataclass(frozen=True)
class NpuRates:
    """The facts that the formula needs, in Hz, MAC/cycle/core, bytes/s, seconds and bytes."""

    cores: int
    hz: float
    macs_per_cycle: float
    core_bandwidth: float
    bus_bandwidth: float
    dispatch_seconds: float
    program_bytes: float

    @property
    def macs_per_second(self) -> float:
        """Of one core."""
        return self.hz * self.macs_per_cycle

    def share(self, active: int) -> float:
        """Bytes/s that each of `active` cores moves."""
        return min(self.core_bandwidth, self.bus_bandwidth / active)


def npu_rates(board: Board) -> NpuRates:
    """The rates of int8 on `board`."""
    return NpuRates(
        cores=int(board.value("npu_cores")),
        hz=board.value("npu_hz"),
        macs_per_cycle=board.value("npu_int8_macs_per_cycle"),
        core_bandwidth=board.value("npu_core_bandwidth"),
        bus_bandwidth=board.value("npu_bus_bandwidth"),
        dispatch_seconds=board.value("npu_submit_seconds"),
        program_bytes=board.value("npu_program_bytes"),
    )


def product_seconds(
    rates: NpuRates, active: int, *, macs: float, data_bytes: float, stream_bytes: float, streamed: bool
) -> float:
    """One matmul program on one of `active` cores. `data_bytes`: activations it loads (0 where they
    stay); `stream_bytes`: weights it loads, sums it writes; `streamed`: two kernel groups fit its banks."""
    share = rates.share(active)
    computing, streaming = macs / rates.macs_per_second, stream_bytes / share
    both = max(computing, streaming) if streamed else computing + streaming
    return (rates.program_bytes + data_bytes) / share + both


def addition_seconds(rates: NpuRates, active: int, *, elements: float) -> float:
    """One program that adds `elements` int32 sums into others, on one of `active` cores."""
    return (rates.program_bytes + ADDITION_BYTES * elements) / rates.share(active)


def kick_seconds(rates: NpuRates, *, slowest_core: float, moved_bytes: float) -> float:
    """One submit: `slowest_core` seconds of the core that takes longest, `moved_bytes` by all cores."""
    return rates.dispatch_seconds + max(slowest_core, moved_bytes / rates.bus_bandwidth)
