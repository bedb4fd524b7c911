"""What of a prompt runs on the NPU and what on the CPU: one planner's table, modelled.

    python -m bench.placement

For 1B, 3B and 8B shapes at 512, 2,048 and 8,192 tokens, weights at 4.25 bits, on a board of 8 GB under the
vendor's driver: every operation's way, the runner-up, what deciding otherwise costs, and of products the
NPU's buffer (`planning/placement.py`). Then activations in one int8 plane, two, or the chip's int16;
attention on the NPU in three forms, beside a published run; two chunks of a prompt in flight
(`planning/in_flight.py`); and the 8B's prompt of 8,192 tokens by all of these. Nothing here was measured on
a board.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from bench.npu_as_built import BITS, Prefill
from rockledge.board.attention_forms import CPU_SOFTMAX, EXP_IN_OUTPUT, FORMS, npu_attention, npu_kv_bytes
from rockledge.board.boards import Board, find_board
from rockledge.board.npu_syncs import Sync
from rockledge.board.placement import CPU
from rockledge.board.prefill import BESIDE, BUS, NPU
from rockledge.npu.programs.steps import STEP_ROWS
from rockledge.planning.in_flight import InFlight, in_flight
from rockledge.planning.placement import (
    PlacedOperator,
    attention_from,
    decode_placement,
    placements,
    plane_forms,
)
from rockledge.runtime.offload.prompt_time import ATTENTION, PromptTimes, layer_linears
from rockledge.synth import shape_config

MODELS = ("1b", "3b", "8b")
PROMPTS = (512, 2048, 8192)
PLANES = {
    "SmolLM2-135M, layer 11, down": (576, 1536, 512),
    "8B, down": (4096, 14336, 512),
    "8B, q|k|v": (6144, 4096, 512),
}
"""Outputs, inputs and rows. The first is the input that two planes would serve: its first token is so large
that one scale for all rows would leave the others few levels."""
HAP = {1: 3.85, 2: 3.08, 3: 2.68}
"""Milliseconds on so many cores for 32 queries x 4,096 keys, 32 heads on 8 KV heads of 128, fp16, exp in the
output: happyme531/rknpu2_matmul_open docs/ATTENTION.md."""
IN_FLIGHT_GOAL = ("8b", 512, 1.4)
EARLIER = {512: 145.0, 8192: 32.0}
"""Tok/s of the 8B that bench.npu_prefill printed until 2026-11-30, before attention changed."""
LONG_GOAL = 2.0


def placement_lines(board: Board) -> Iterator[str]:
    """The table of all operations."""
    for model in MODELS:
        config, times = shape_config(model), Prefill(board, model)
        yield ""
        yield f"{model}: steps of {times.plan.from_rows} tokens or more have their linears on the NPU"
        yield (
            f"{'tokens':>6} {'operation':18}{'size':>16}  {'choice':28}{'seconds':>9}  {'runner-up':28}"
            f"{'costs':>9}  banks  MB refetched"
        )
        for tokens in PROMPTS:
            for found in placements(times, board, config, tokens):
                yield f"{tokens:6} {_row(found)}"
        yield f"{'':6} {_row(decode_placement(times.plan, board, config, BITS))}"


def _row(found: PlacedOperator) -> str:
    choice, other, use = found.placement.choice, found.placement.runner_up, found.buffer
    banks = "" if use is None else f"  {use.data_banks:2}+{use.weight_banks:<2}{use.refetched / 1e6:14.1f}"
    return (
        f"{found.operator:18}{found.size:>16}  {choice.name:28}{choice.seconds:9.3f}  {other.name:28}"
        f"{found.placement.costs:9.3f}{banks}".rstrip()
    )


def plane_lines(board: Board) -> Iterator[str]:
    """Activations in three forms."""
    yield ""
    yield (
        f"{'activations of a step of 512':32}{'form':18}{'bits':>5}{'NPU ms':>9}{'CPU ms':>9}  banks"
        "  MB refetched"
    )
    for name, (outputs, inputs, rows) in PLANES.items():
        for form in plane_forms(outputs, inputs, rows, BITS, board):
            cpu = "" if form.cpu is None else f"{1e3 * form.cpu:.2f}"
            use = form.buffer
            yield (
                f"{name:32}{form.form:18}{form.bits:5}{1e3 * form.npu:9.2f}{cpu:>9}  "
                f"{use.data_banks:2}+{use.weight_banks:<2}{use.refetched / 1e6:14.1f}"
            )


def sram_lines(board: Board) -> Iterator[str]:
    """What the chip's SRAM would hold of what a layer moves in a step."""
    size, rows = board.value("system_sram_bytes"), STEP_ROWS[-1]
    yield ""
    yield f"system SRAM, {size / 1024:,.0f} KiB; MB of a layer in a step of {rows}"
    yield f"{'model':6}{'all that moves':>16}{'input of o':>20}{'its weights':>14}{'SRAM, % of all':>17}"
    for model in MODELS:
        config, times = shape_config(model), Prefill(board, model)
        moved = times.prompt(rows).alone[BUS] * board.value("npu_bus_bandwidth") / config.layers
        outputs, inputs, _ = min(layer_linears(config), key=lambda one: one[0] * one[1])
        yield (
            f"{model:6}{moved / 1e6:16,.0f}{rows * inputs / 1e6:20.1f}{outputs * inputs / 1e6:14.1f}"
            f"{100 * size / moved:17.2f}"
        )


def attention_lines(board: Board) -> Iterator[str]:
    """Attention's seconds of whole prompts, and a published run of one form."""
    yield ""
    yield (
        f"{'attention, s':14}{CPU:>8}"
        + "".join(f"{form:>22}" for form in FORMS)
        + "   GB handed over   MB beside"
    )
    for model in MODELS:
        config, times = shape_config(model), Prefill(board, model)
        for tokens in PROMPTS:
            rows = STEP_ROWS[-1]
            starts = range(0, tokens, rows)
            cpu = times.prompt(tokens).elapsed[ATTENTION]
            each = {
                form: [npu_attention(board, config, rows, start, form) for start in starts] for form in FORMS
            }
            seconds = [config.layers * sum(one.seconds for one in each[form]) for form in FORMS]
            handed = sum((one.syncs.times(config.layers) for one in each[CPU_SOFTMAX]), Sync())
            kept = npu_kv_bytes(config, tokens, CPU_SOFTMAX)
            yield (
                f"{model:3} {tokens:9,} {cpu:8.2f}"
                + "".join(f"{value:22.2f}" for value in seconds)
                + f"{handed.bytes / 1e9:17.1f}{kept / 1e6:12.0f}"
            )
    yield ""
    for model in MODELS:
        first = attention_from(Prefill(board, model), board, shape_config(model), PROMPTS[-1])
        said = "not" if first is None else f"from position {first:,} on"
        yield f"{model}: attention pays on the NPU {said}, as modelled"
    yield ""
    yield f"{EXP_IN_OUTPUT}, 32 queries x 4,096 keys (HAP): cores, published and modelled ms"
    one_layer = replace(shape_config("8b"), layers=1)
    for cores, published in HAP.items():
        fewer = board.measured({"npu_cores": cores}, "cores of a published run")
        found = npu_attention(fewer, one_layer, 32, 4096, EXP_IN_OUTPUT, masked=False)
        yield f"{cores}{published:8.2f}{1e3 * found.seconds:8.2f}"


def single_steps(board: Board, model: str) -> dict[int, PromptTimes]:
    """What would be planned for steps of one size, by that size."""
    config = shape_config(model)
    return {rows: PromptTimes(board, config, BITS, steps=(rows,)) for rows in STEP_ROWS[1:]}


def best_in_flight(plans: Mapping[int, PromptTimes], board: Board, model: str, tokens: int) -> InFlight:
    """The fastest size of chunks."""
    config = shape_config(model)
    sizes = [rows for rows in plans if tokens % (2 * rows) == 0]
    return min((in_flight(plans[n], board, config, tokens, n) for n in sizes), key=lambda one: one.seconds)


def in_flight_lines(board: Board) -> Iterator[str]:
    """Two chunks at once beside one after another."""
    yield ""
    yield "two chunks in flight (modelled; the executor takes one): seconds that NPU, bus and CPU are busy"
    yield (
        f"{'model':6}{'tokens':>7}{'today':>8}{'pairs of':>10}{'tok/s':>8}{'times':>7}"
        f"{'NPU':>8}{'bus':>8}{'CPU':>8}  binds"
    )
    goals: list[str] = []
    for model in MODELS:
        times, plans = Prefill(board, model), single_steps(board, model)
        for tokens in (512, 1024, 2048, 8192):
            now, found = times.prompt(tokens).seconds, best_in_flight(plans, board, model, tokens)
            busy = "".join(f"{found.alone[side]:8.2f}" for side in (NPU, BUS, BESIDE))
            yield (
                f"{model:6}{tokens:7,}{tokens / now:8.0f}{found.rows:10}{tokens / found.seconds:8.0f}"
                f"{now / found.seconds:7.2f}{busy}  {found.binds}"
            )
            if (model, tokens) == IN_FLIGHT_GOAL[:2]:
                bases = (("today's figure", tokens / now), ("the earlier figure", EARLIER[tokens]))
                goals = [_goal(name, tokens / found.seconds, base) for name, base in bases]
    yield from goals


def _goal(name: str, reached: float, base: float) -> str:
    model, tokens, wanted = IN_FLIGHT_GOAL
    verdict = "met" if reached >= wanted * base else "not met"
    return (
        f"goal, {model}, {tokens} tokens: {wanted} times {base:.0f} tok/s, {name}: "
        f"{reached / base:.2f} times, {verdict}"
    )


def long_prompt_lines(board: Board) -> Iterator[str]:
    """The 8B's prompt of 8,192 tokens. With keys and values in the NPU's layout no block of weights stays."""
    tokens, config, times = 8192, shape_config("8b"), Prefill(board, "8b")
    streamed = times.prompt(tokens, streamed=True)
    (attention,) = (one for one in placements(times, board, config, tokens) if one.operator == "attention")
    on_npu = streamed.seconds - streamed.elapsed[ATTENTION] + attention.placement.choice.seconds
    pairs = best_in_flight(single_steps(board, "8b"), board, "8b", tokens)
    wanted = LONG_GOAL * EARLIER[tokens]
    yield ""
    yield f"8B, 8,192 tokens, cache maintenance included: tok/s; goal: {wanted:.0f}"
    for name, seconds in (
        ("attention on the CPU", times.prompt(tokens).seconds),
        ("attention on the CPU, two chunks in flight", pairs.seconds),
        (f"attention on the {attention.placement.choice.name}", on_npu),
    ):
        verdict = "met" if tokens / seconds >= wanted else "not met"
        yield f"{name:48}{tokens / seconds:8.0f}  {verdict}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints all tables."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.placement", description="what runs where, modelled"
    )
    parser.parse_args(arguments)
    board = find_board("rk3588-8gb")
    print("modelled: seconds of whole prompts and all layers; refetched in a layer's step")
    for lines in (
        placement_lines,
        plane_lines,
        sram_lines,
        attention_lines,
        in_flight_lines,
        long_prompt_lines,
    ):
        print("\n".join(lines(board)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
