"""What the CPU does while the NPU runs: how fast it unpacks, and whether the rest fits under the NPU's time.

    python -m bench.npu_cpu [--turns 60] [--json]

On this machine, measured: GB/s of int8 that each code width is unpacked to, beside writing and copying memory
in the same turns; floats made of sums; rows quantised; and the other operations of a step of 256 tokens, one
thread, 1B shape. The least of many turns counts. For the Cortex-A76: instructions under an emulator, cycles
of the loops from llvm-mca, never less than a quarter of the instructions; what follows for four cores is
modelled, as is the NPU's time of the same blocks (`npu_as_built`). Writes bench/results/npu_cpu.json.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import kernel_cycles
from bench.machine import processor
from bench.models import UnavailableError
from bench.npu_as_built import Prefill
from bench.npu_work.driver import Found, instructions, rates, times
from bench.speed_models import artifact
from rockledge.board.boards import Board, find_board
from rockledge.board.npu_facts import APART_CYCLES, EPILOGUE_INSTRUCTIONS, LOOP_CYCLES
from rockledge.board.prefill import BESIDE, BUS, NPU
from rockledge.runtime.engine import Engine
from rockledge.runtime.offload.prompt_time import ATTENTION, OTHER_CPU

RESULTS = Path(__file__).parent / "results" / "npu_cpu.json"
MEBIBYTES, COUNTED_MEBIBYTES = 64, 4
BITS = (2, 3, 4, 8)
TILE = 256
STEP = 256
REPEATS = 4
MODELS = ("1b", "3b", "8b")
PROMPT = 512
WIDTH = 4  # instructions that an A76 decodes in a cycle
# Cycles a float of the loops alone.
LOOPS = {
    "finish, 1 part, residual": LOOP_CYCLES["epilogue"] / 8,
    "finish, 3 parts, residual": (LOOP_CYCLES["epilogue"] + 2 * LOOP_CYCLES["sums of a part"]) / 8,
    "finish, 1 part, 2 planes": LOOP_CYCLES["epilogue, two planes"] / 8,
    "quantise": (LOOP_CYCLES["largest"] + LOOP_CYCLES["codes"]) / 16,
    "quantise, 2 planes": (LOOP_CYCLES["largest"] + LOOP_CYCLES["codes, two planes"]) / 16,
}


def drift(counted: Mapping[str, Found]) -> list[str]:
    """What the facts of the board say otherwise about the epilogue."""
    one, three = (counted[f"finish, {parts}, residual"].each for parts in ("1 part", "3 parts"))
    found = zip(EPILOGUE_INSTRUCTIONS, (one, (three - one) / 2), strict=True)
    return [
        f"a float of the epilogue: the fact says {said} instructions, counted are {counts:.2f}"
        for said, counts in found
        if abs(counts / said - 1) > kernel_cycles.TOLERANCE
    ]


def unpacking(board: Board, counted: Mapping[str, Found]) -> list[dict[str, float]]:
    """For each width on the A76: instructions and cycles of a tile, GB/s of int8 of a core and of all four,
    modelled, by cycles alone and under the memory's bandwidth (codes read, int8 written)."""
    hz, cores = board.value("cpu_hz"), board.value("cpu_cores")
    found = []
    for bits in BITS:
        cycles = APART_CYCLES[bits]
        one = TILE / cycles * hz / 1e9
        moved = 1 + (bits / 8 if bits == 8 else bits / 8 + 8 / TILE)
        found.append(
            {
                "bits": bits,
                "instructions_per_tile": round(TILE * counted[f"unpack {bits}"].each, 1),
                "cycles_per_tile": cycles,
                "core_gb_s": round(one, 1),
                "four_cores_gb_s": round(cores * one, 1),
                "bandwidth_gb_s": round(board.value("npu_bus_bandwidth") / moved / 1e9, 1),
            }
        )
    return found


def fits(alone: Mapping[str, float]) -> bool:
    """Whether the CPU is done with its work of a block before the NPU and the bus are."""
    return alone[BESIDE] <= max(alone[NPU], alone[BUS])


def beside(board: Board, models: Sequence[str] = MODELS) -> list[dict[str, Any]]:
    """For each model, microseconds a token of a prompt's linears: the NPU's and the bus's alone, the CPU's
    work beside them, and what the CPU does in turn with them."""
    found = []
    for name in models:
        prompt = Prefill(board, name).prompt(PROMPT)
        micros = {part: round(1e6 * seconds / PROMPT, 1) for part, seconds in prompt.alone.items()}
        turns = {part: round(1e6 * prompt.elapsed[part] / PROMPT, 1) for part in (ATTENTION, OTHER_CPU)}
        row = {"model": name, "tokens": PROMPT, "alone_us": micros, "in_turn_us": turns, "fits": fits(micros)}
        found.append(row)
    return found


def step(path: Path) -> dict[str, float]:
    """Measured microseconds a token of the operations of a step that are not linears, one thread."""
    with Engine.load(path, threads=1, ctx=STEP + 8, npu="off") as engine:
        names, spent = engine.time_operations()
        least = np.full(len(names), np.iinfo(np.int64).max)
        for _ in range(REPEATS):
            spent[:] = 0
            ids = [(7919 * i + 101) % engine.config.vocab for i in range(STEP)]
            for _ in engine.generate(ids, max_tokens=1, ignore_eos=True):
                pass
            np.minimum(least, spent, out=least)
    parts: dict[str, float] = {}
    for name, nanoseconds in zip(names, least.tolist(), strict=True):
        parts[name] = parts.get(name, 0.0) + nanoseconds / 1e3 / STEP
    return {name: round(micros, 2) for name, micros in parts.items()}


def table(result: Mapping[str, Any]) -> str:
    """For people."""
    lines = [f"{result['machine']}, measured: GB/s of int8 unpacked, of bytes written and copied"]
    for threads, speeds in result["measured"].items():
        memory = "  ".join(
            f"{k} {v:.1f}" for k, v in speeds.items() if k in ("write", "copy") or "unpack" in k
        )
        lines.append(f"  {threads} thread{'s' * (threads != '1')}: {memory}")
    lines += ["", "nanoseconds a float, one thread"]
    for kind, speed in result["measured"]["1"].items():
        if kind.startswith(("finish", "quantise")):
            lines.append(f"  {kind:28}{1 / speed:6.2f}")
    lines += ["", "a step of 256 tokens of the 1B shape, one thread: microseconds a token"]
    lines.append(
        "  " + "  ".join(f"{name} {spent:.1f}" for name, spent in result["step_us_per_token"].items())
    )
    lines += [
        "",
        "Cortex-A76, modelled",
        "bits  instructions/tile  cycles/tile  GB/s a core  four  memory allows",
    ]
    for one in result["a76_unpacking"]:
        lines.append(
            f"{one['bits']:4}{one['instructions_per_tile']:19}{one['cycles_per_tile']:13}{one['core_gb_s']:13}"
            f"{one['four_cores_gb_s']:6}{one['bandwidth_gb_s']:15}"
        )
    lines += ["", f"{'kind':28}instructions  cycles a float"]
    for kind, one in result["a76_floats"].items():
        lines.append(f"{kind:28}{one['instructions']:12}{one['cycles']:16}")
    lines += ["", f"microseconds a token, prompt of {PROMPT}, modelled"]
    for row in result["a76_beside"]:
        alone = ", ".join(f"{part} {spent:.0f}" for part, spent in row["alone_us"].items())
        turns = ", ".join(f"{part} {spent:.0f}" for part, spent in row["in_turn_us"].items())
        lines.append(
            f"{row['model']}: {alone}: {'fits' if row['fits'] else 'DOES NOT FIT'}; in turn: {turns}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 when a tool is missing, the facts are not the kernel's, or the work does not fit."""
    parser = argparse.ArgumentParser(prog="python -m bench.npu_cpu", description="the CPU while the NPU runs")
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--output", type=Path, default=RESULTS)
    chosen = parser.parse_args(arguments)
    board = find_board("rk3588-8gb")
    if missing := kernel_cycles.missing_tools():
        print(f"{', '.join(missing)} not found", file=sys.stderr)
        return 1
    try:
        counted = instructions(COUNTED_MEBIBYTES)
        measured = {str(threads): rates(times(threads, chosen.turns, MEBIBYTES)) for threads in (1, 2)}
    except UnavailableError as error:
        print(error, file=sys.stderr)
        return 1
    drifted = kernel_cycles.drift(kernel_cycles.measure(), kernel_cycles.measure_around())
    drifted += drift(counted)
    floats = {
        kind: {
            "instructions": round(one.each, 2),
            "cycles": round(max(one.each / WIDTH, LOOPS.get(kind, 0.0)), 2),
        }
        for kind, one in counted.items()
        if kind.startswith(("finish", "quantise"))
    }
    result: dict[str, Any] = {
        "machine": processor(),
        "measured": measured,
        "step_us_per_token": step(artifact("1b")),
        "a76_unpacking": unpacking(board, counted),
        "a76_floats": floats,
        "a76_beside": beside(board),
        "drifted": drifted,
    }
    chosen.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result) if chosen.json else table(result))
    for sentence in drifted:
        print(sentence, file=sys.stderr)
    return int(bool(drifted) or not all(row["fits"] for row in result["a76_beside"]))


if __name__ == "__main__":
    raise SystemExit(main())
