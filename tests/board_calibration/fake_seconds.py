"""Seconds that probes would take on a machine whose constants are given."""

from rockledge.board.cycles import cycles_fact
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
from rockledge.board_calibration.measure import Repeated

HZ = 2.0e9
THREADS = 4
WEIGHTS_BYTES = 64 << 20

TRUE = {
    OPERATION: 4e-6,
    OUTPUT: 6.0,
    PROMPT_OUTPUT: 1.5,
    DRAW: 2.5,
    STEP: 30e-6,
    SEQUENCE: 12e-6,
    DECODE_SCORE: 3.0,
    DECODE_MAC: 0.11,
    "cpu_norm_cycles": 0.7,
    "cpu_quantise_cycles": 0.8,
    "cpu_hadamard_cycles": 2.1,
    "cpu_gate_cycles": 4.7,
    "cpu_rope_cycles": 0.5,
    "cpu_attention_cycles_per_score": 5.4,
    "cpu_attention_cycles_per_score_mac": 0.15,
    "cpu_attention_cycles_per_value_mac": 0.15,
    "cpu_prefill_macs_per_cycle": 32.0,
    **{f"cpu_unpack_cycles_per_weight_{bits}_bits": 0.1 + bits / 100 for bits in WIDTHS},
    **{cycles_fact(bits, rows): 0.05 * bits * (1 + rows) for bits in WIDTHS for rows in (1, 2)},
    # Reading alone takes less than this at every width, as the formula of decode wants it.
    **{
        streamed_fact(bits, rows): (0.15 + 0.02 * bits) * (2 + rows) for bits in WIDTHS for rows in p.FEW_ROWS
    },
}
BANDWIDTHS = {1: 8e9, 2: 14e9, 4: 16e9}
"""Of fewer threads than all."""


def measured(probes, *, threads, weights, repeats, advance):
    """In place of `measure.measured`: nothing runs."""
    advance(repeats, repeats)
    return Repeated({probe: [seconds(probe, threads=threads)] * repeats for probe in probes}, None)


def seconds(probe, true=TRUE, threads=THREADS, hz=HZ):
    all_cores = threads * hz
    if isinstance(probe, p.EngineStep):
        rounds = -(-probe.sequences // threads)  # cores draw beside each other
        draws = rounds * probe.vocab * true[DRAW] / hz
        return true[STEP] + probe.sequences * true[SEQUENCE] + draws
    if isinstance(probe, p.RowOperation):
        quantise = true["cpu_quantise_cycles"]
        cycles = {
            "norm": true["cpu_norm_cycles"],
            "quantise": quantise,
            "hadamard": quantise + true["cpu_hadamard_cycles"],
            "gate": quantise + true["cpu_gate_cycles"],
            # Queries and keys turn, all are quantised; keys and values are a quarter of the queries each.
            "rope": 1.25 * true["cpu_rope_cycles"] + 1.5 * quantise,
        }[probe.kind]
        return probe.count * true[OPERATION] + probe.elements * cycles / all_cores
    if isinstance(probe, p.Attends):
        if probe.rows == 1:
            each = true[DECODE_SCORE] + probe.head_dim * true[DECODE_MAC]
        else:
            macs = ("cpu_attention_cycles_per_score_mac", "cpu_attention_cycles_per_value_mac")
            each = true["cpu_attention_cycles_per_score"] + probe.head_dim * sum(true[mac] for mac in macs)
        return probe.count * true[OPERATION] + probe.scores * each / all_cores
    if probe.place == "memory":
        if probe.threads < threads:
            return probe.bytes / BANDWIDTHS[probe.threads]
        outputs = probe.count * probe.rows * probe.outputs * true[OUTPUT]
        streamed = probe.weights * true[streamed_fact(probe.bits, probe.rows)]
        return probe.count * true[OPERATION] + (outputs + streamed) / all_cores
    if probe.rows in (1, 2):
        return probe.weights * true[cycles_fact(probe.bits, probe.rows)] / hz
    unpacked = probe.weights * true[f"cpu_unpack_cycles_per_weight_{probe.bits}_bits"]
    products = probe.rows * probe.weights / true["cpu_prefill_macs_per_cycle"]
    outputs = probe.count * probe.rows * probe.outputs * true[PROMPT_OUTPUT]
    return probe.count * true[OPERATION] + (unpacked + products + outputs) / all_cores
