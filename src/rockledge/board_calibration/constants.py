"""From seconds of probes to constants: every formula of the board model, solved for its facts.

Cycles are seconds times the stated clock, of one core, or where all work of all cores together. So whatever
clock is stated, seconds that are predicted from them are the same.
"""

from collections.abc import Callable, Mapping
from math import ceil
from typing import Final

import numpy as np
import numpy.typing as npt

from rockledge.board.cycles import cycles_fact
from rockledge.board.facts import UNITS
from rockledge.board.facts_file import WIDTHS, streamed_fact
from rockledge.board.step_time import (
    DECODE_MAC,
    DECODE_SCORE,
    DRAW,
    OPERATION,
    OUTPUT,
    PROMPT_OUTPUT,
    SEQUENCE,
    STEP,
)
from rockledge.board_calibration import probes as p

BANDWIDTHS: Final = {
    1: "cpu_read_bandwidth_1_core",
    2: "cpu_read_bandwidth_2_cores",
    4: "cpu_read_bandwidth_4_cores",
}
ALL_CORES: Final = "cpu_read_bandwidth"
LEAST_SECONDS: Final = UNITS["s"].least

Seconds = Callable[[p.Probe], float]


def constants(
    seconds: Mapping[p.Probe, float], threads: int, hz: float, weights_bytes: int
) -> dict[str, float]:
    """Facts by name, in the units of `rockledge.board.facts`. Where noise would make one negative, it is the
    least that its unit can be."""

    def time(probe: p.Probe) -> float:
        return seconds[probe]

    handing, output = _from_shapes(time, threads, hz, weights_bytes)
    found = {OPERATION: handing, OUTPUT: output}
    found |= _bandwidths(time, threads, weights_bytes)
    found |= _decode_linears(time, threads, hz, weights_bytes, handing, output)
    found |= _prompt_linears(time, threads, hz, handing)
    found |= _row_operations(time, threads, hz, handing)
    found |= _attention(time, threads, hz, handing)
    found |= _steps(time, threads, hz)
    return found


def _from_shapes(time: Seconds, threads: int, hz: float, weights_bytes: int) -> tuple[float, float]:
    """Seconds of an operation, and cycles of an output for one row: of all linears from memory at once,

        seconds = operation + rows x outputs x an output + weights x a weight at so many rows

    with the least sum of squares of relative errors."""
    left, right = [], []
    for shape in p.SHAPES:
        for number, rows in enumerate(p.SHAPE_ROWS):
            probe = p.from_memory(p.SHAPE_BITS, rows, threads, weights_bytes, shape)
            each = time(probe) / probe.count
            columns = [0.0] * len(p.SHAPE_ROWS)
            columns[number] = probe.outputs * probe.inputs
            left.append([1.0 / each, rows * probe.outputs / each, *(column / each for column in columns)])
            right.append(1.0)
    operation, output, *_ = np.linalg.lstsq(_scaled(left), np.array(right), rcond=None)[0] * _SCALES
    cycles = float(output) * threads * hz
    return max(float(operation), LEAST_SECONDS), max(cycles, UNITS["cycles/element"].least)


_SCALES: Final = np.array([1e-6, 1e-9, *(1e-11 for _ in p.SHAPE_ROWS)])
"""About what the unknowns of `_from_shapes` are, so that no column is lost to rounding."""


def _scaled(rows: list[list[float]]) -> npt.NDArray[np.float64]:
    return np.asarray(np.array(rows) * _SCALES, np.float64)


def _bandwidths(time: Seconds, threads: int, weights_bytes: int) -> dict[str, float]:
    found = {}
    for some in p.reading_threads(threads):
        probe = p.from_memory(8, 1, some, weights_bytes)
        rate = probe.bytes / time(probe)
        if some in BANDWIDTHS:
            found[BANDWIDTHS[some]] = rate
        if some == threads:
            found[ALL_CORES] = rate
    return found


def _decode_linears(
    time: Seconds, threads: int, hz: float, weights_bytes: int, handing: float, output: float
) -> dict[str, float]:
    found: dict[str, float] = {}
    for bits in WIDTHS:
        for rows in (1, 2):
            cached = p.from_cache(bits, rows)
            found[cycles_fact(bits, rows)] = time(cached) * hz / cached.weights
        for rows in p.FEW_ROWS:
            probe = p.from_memory(bits, rows, threads, weights_bytes)
            outputs = rows * probe.outputs * output / (threads * hz)
            own = _less(time(probe), probe.count * (handing + outputs))
            found[streamed_fact(bits, rows)] = own * threads * hz / probe.weights
    return found


def _prompt_linears(time: Seconds, threads: int, hz: float, handing: float) -> dict[str, float]:
    def cycles(probe: p.Linears) -> float:
        """Of all cores, of one of its operations."""
        return _less(time(probe) / probe.count, handing) * threads * hz

    few, many = p.PROMPT_ROWS
    one, other = (p.prompt(p.SHAPE_BITS, many, threads, shape) for shape in p.PROMPT_SHAPES)
    outputs = many * (other.outputs - one.outputs)
    output = max((cycles(other) - cycles(one)) / outputs, UNITS["cycles/element"].least)
    found, products, first = {PROMPT_OUTPUT: output}, [], {}
    for bits in WIDTHS:
        each = {rows: cycles(p.prompt(bits, rows, threads)) for rows in p.PROMPT_ROWS}
        products.append((each[many] - each[few]) / (many - few) - one.outputs * output)
        first[bits] = each[few]
    weights = one.outputs * one.inputs
    product = max(sum(products) / len(products) / weights, 1 / UNITS["MAC/cycle/core"].most)
    for bits in WIDTHS:
        unpack = (first[bits] - few * one.outputs * output) / weights - few * product
        found[f"cpu_unpack_cycles_per_weight_{bits}_bits"] = max(unpack, UNITS["cycles/weight"].least)
    return found | {"cpu_prefill_macs_per_cycle": 1 / product}


def _row_operations(time: Seconds, threads: int, hz: float, handing: float) -> dict[str, float]:
    def cycles(kind: p.Operation) -> float:
        probe = p.row_operation(kind, threads)
        own = _less(time(probe), probe.count * handing)
        return own * threads * hz / probe.elements

    least = UNITS["cycles/element"].least
    quantise = cycles("quantise")
    # Of a row of queries, keys and values the first two turn, and all are quantised (`board/prefill.py`).
    rope = (cycles("rope") - 1.5 * quantise) / 1.25
    return {
        "cpu_quantise_cycles": quantise,
        "cpu_norm_cycles": cycles("norm"),
        "cpu_hadamard_cycles": max(cycles("hadamard") - quantise, least),
        "cpu_gate_cycles": max(cycles("gate") - quantise, least),
        "cpu_rope_cycles": max(rope, least),
    }


def _attention(time: Seconds, threads: int, hz: float, handing: float) -> dict[str, float]:
    def cycles(probe: p.Attends) -> float:
        return _less(time(probe), probe.count * handing) * threads * hz / probe.scores

    narrow, wide = p.HEAD_DIMS

    def told_apart(of: Callable[[int, int], p.Attends]) -> tuple[float, float]:
        """Cycles a score, and a product, from heads of two sizes."""
        one, two = cycles(of(narrow, threads)), cycles(of(wide, threads))
        product = max((two - one) / (wide - narrow), 2 * UNITS["cycles/MAC"].least)
        return max(one - narrow * product, UNITS["cycles/score"].least), product

    score, product = told_apart(p.reading)
    decode_score, decode_product = told_apart(p.decoding)
    return {
        "cpu_attention_cycles_per_score": score,
        # One operation does both, so they are taken to be alike.
        "cpu_attention_cycles_per_score_mac": product / 2,
        "cpu_attention_cycles_per_value_mac": product / 2,
        DECODE_SCORE: decode_score,
        DECODE_MAC: decode_product,
    }


def _steps(time: Seconds, threads: int, hz: float) -> dict[str, float]:
    few, many = p.VOCABULARIES
    one, four, other = time(p.EngineStep(1, few)), time(p.EngineStep(4, few)), time(p.EngineStep(1, many))
    draw = max((other - one) / (many - few), UNITS["cycles/element"].least / hz)
    # Threads draw beside each other, a sequence each.
    draws = [few * draw * ceil(sequences / threads) for sequences in (1, 4)]
    each = max(((four - draws[1]) - (one - draws[0])) / 3, LEAST_SECONDS)
    return {STEP: max(one - draws[0] - each, LEAST_SECONDS), SEQUENCE: each, DRAW: draw * hz}


def _less(seconds: float, overhead: float) -> float:
    """Without the overhead; at least a tenth, where noise has made that too large."""
    return max(seconds - overhead, seconds / 10)
