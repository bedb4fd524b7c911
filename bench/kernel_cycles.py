"""Cycles of the inner loops on a Cortex-A76, as compiled: the source of board/cycles.py and npu_facts.py.

    python -m bench.kernel_cycles [--json]

Cross-compiles native/neon.cpp with the flags of the build, takes the inner loops out of its object code by
the names of their functions, and simulates them with llvm-mca on the Neoverse N1, the server twin of the A76
(LLVM's own entry for the A76 is the model of another core). The A76 decodes four instructions a cycle, which
that model does not know, so a loop never counts for less than a quarter of its instructions. Needs
aarch64-linux-gnu-g++ and llvm-mca-19; exits 1 without them, and when the table no longer describes the
kernel.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from rockledge.board.boards import find_board
from rockledge.board.cycles import PREFILL_MACS_PER_CYCLE, TILE_CYCLES
from rockledge.board.npu_facts import APART_CYCLES, LOOP_CYCLES, UNPACK_CYCLES
from rockledge.board.tiles import TILE_WEIGHTS

TREE = Path(__file__).parent.parent
COMPILER, DISASSEMBLER, SIMULATOR = "aarch64-linux-gnu-g++", "aarch64-linux-gnu-objdump", "llvm-mca-19"
FLAGS = ("-std=c++20", "-O3", "-fno-math-errno", "-ffp-contract=off", "-fno-exceptions", "-fno-rtti")
SDOT_MACS = 16
ITERATIONS = 1000
TOLERANCE = 0.02
STREAMED, UNPACKED, APART, PRODUCT = "decode", "unpack", "for NPU", "multiply"


@dataclass(frozen=True)
class Mark:
    """What tells a loop: its function, and of which instructions it has how many (0: none at all).

    Numbers say at the same time what one round does, so that a loop that now does something else is not taken
    for it. Forward branches `jumped` (a pattern) are taken; where there are others, all ways are."""

    function: str
    has: Mapping[str, int]
    jumped: str = ""


class LoopNotFoundError(LookupError):
    """No loop of the compiled kernel is like a mark."""


# Loops around products. In `attention.hpp` a group of four heads, 16 positions and 16 columns of values.
AROUND = {
    "keys": Mark("multiply_rows<4>", {"sdot": 32}),
    "scores": Mark(
        "split_heads<4>", {r"scvtf v\d+\.4s": 8, "fmaxnm": 8, "str q": 8, "fadd": 0}, jumped="cbz"
    ),
    "weights": Mark("code_weights", {r"shl v\d+\.4s, .*#23": 4, "fmaxnm": 8}),
    "weight codes": Mark("code_weights", {"shrn": 2}),
    "values": Mark("value_dots<2>", {"sdot": 32}),
    "value sums": Mark("sum_values", {r"scvtf v\d+\.4s": 8, "fmul": 8, "fmaxnm": 0}),
    "hadamard in registers": Mark("hadamard", {"uzp1": 3, "fadd": 3}),
    "hadamard steps": Mark("hadamard", {"fadd": 24, "fsub": 24}),
    "hadamard scale": Mark("hadamard", {"fmul": 2, "fadd": 0}),
    "largest": Mark("quant_in_atoms", {"fmaxnm": 4}),
    "codes": Mark("quant_in_atoms", {"xtn": 2}),
    "codes, two planes": Mark("quant_in_atoms", {"xtn": 4, "sshr": 4}),
    "sums of a part": Mark("finish_lane", {r"add v\d+\.4s": 2, "scvtf": 0}),
    "epilogue": Mark("finish_lane", {r"scvtf v\d+\.4s": 2}),
    "epilogue, two planes": Mark("finish_lane", {"fcvtn2 ": 2}),
}


@dataclass(frozen=True)
class Loop:
    """One inner loop, for one tile of 8 x 32 weights: its instructions, cycles as simulated and as counted.

    `rows` of activations; `macs_per_cycle` 0 where nothing is multiplied; `code_gb_s` what four cores would
    consume, 0 where weights come unpacked from the cache."""

    work: str
    bits: int
    rows: int
    instructions: float
    simulated_cycles: float
    cycles: float
    macs_per_cycle: float
    code_gb_s: float


def missing_tools() -> list[str]:
    """The programs this bench needs and the machine lacks."""
    return [tool for tool in (COMPILER, DISASSEMBLER, SIMULATOR) if shutil.which(tool) is None]


def measure() -> list[Loop]:
    """Every loop of native/neon.cpp that weights go through."""
    bodies = inner_loops(disassembly())
    found = []
    for bits in (2, 3, 4, 8):
        found.append(_loop(bodies, STREAMED, bits, 1, [f"stream_row<{bits}>"]))
        found.append(_loop(bodies, STREAMED, bits, 2, [f"stream_rows<{bits}, 2, 0, 1>"]))
        halves = [f"stream_rows<{bits}, 4, {half}, {half}>" for half in (0, 1)]
        found.append(_loop(bodies, STREAMED, bits, 4, halves))
        found.append(_loop(bodies, UNPACKED, bits, 0, [f"unpack_tiles<{bits}>"]))
        found.append(_loop(bodies, APART, bits, 0, [f"unpack_tiles_apart<{bits}>"]))
    return found + [_loop(bodies, PRODUCT, 8, rows, [f"multiply_rows<{rows}>"]) for rows in (4, 8)]


def measure_around() -> dict[str, float]:
    """Cycles of one round of the loops that other facts rest on (board/npu_facts.py)."""
    bodies = {name: marked(disassembly(), mark) for name, mark in AROUND.items()}
    return {name: round(max(simulate(body), len(body) / 4), 2) for name, body in bodies.items()}


def _loop(bodies: dict[str, list[str]], work: str, bits: int, rows: int, functions: list[str]) -> Loop:
    instructions = simulated = cycles = 0.0
    macs = 0
    for function in functions:
        body = bodies[function]
        products = SDOT_MACS * sum(line.startswith("sdot") for line in body)
        macs += products
        tiles = products * len(functions) / (TILE_WEIGHTS * rows) if rows else 1.0
        spent = simulate(body)
        instructions += len(body) / tiles
        simulated += spent / tiles
        cycles += max(spent, len(body) / 4) / tiles
    board = find_board("rk3588-8gb")
    tile_bytes = 0 if work == PRODUCT else TILE_WEIGHTS * bits / 8
    return Loop(
        work,
        bits,
        rows,
        instructions=instructions,
        simulated_cycles=round(simulated, 2),
        cycles=round(cycles, 2),
        macs_per_cycle=round(TILE_WEIGHTS * rows / cycles, 2),
        code_gb_s=round(tile_bytes / cycles * board.value("cpu_cores") * board.value("cpu_hz") / 1e9, 1),
    )


@cache
def disassembly() -> str:
    """objdump of the compiled kernel file, names demangled."""
    build = (TREE / "CMakeLists.txt").read_text(encoding="utf-8")
    options = re.search(r'native/neon\.cpp PROPERTIES COMPILE_OPTIONS "([^"]+)"', build)
    assert options is not None, "CMakeLists.txt no longer sets options for native/neon.cpp"
    with tempfile.TemporaryDirectory() as folder:
        target = f"{folder}/neon.o"
        source = str(TREE / "native" / "neon.cpp")
        subprocess.run([COMPILER, *FLAGS, *options[1].split(";"), "-c", source, "-o", target], check=True)
        objdump = [DISASSEMBLER, "-d", "-C", "--no-show-raw-insn", target]
        return subprocess.run(objdump, check=True, capture_output=True, text=True).stdout


def inner_loops(text: str) -> dict[str, list[str]]:
    """The longest loop without branches of every template function: instructions by name and arguments."""
    found: dict[str, list[str]] = {}
    for name, loop in _loops(text):
        *words, back = (words for _, words in loop)
        if "<" in name and len(loop) > len(found.get(name, ())) and not any(map(_BRANCH.match, words)):
            found[name] = [*words, _BRANCH.sub(_to_start, back)]
    return found


def marked(text: str, mark: Mark) -> list[str]:
    """The first of the shortest loops that are like `mark`, without loops inside it: what it executes where
    the compiler has put rare ways elsewhere. Raises LoopNotFoundError: what the loops have instead."""
    loops = [loop for name, loop in _loops(text) if name == mark.function]
    rounds = [_round(loop, loops, mark.jumped) for loop in loops]
    counts = [{like: _count(body, like) for like in mark.has} for body in rounds]
    like = [body for body, count in zip(rounds, counts, strict=True) if count == dict(mark.has)]
    if not like:
        raise LoopNotFoundError(f"{mark.function} has no loop with {dict(mark.has)}; its loops have {counts}")
    return min(like, key=len)


def _count(body: Sequence[str], like: str) -> int:
    return sum(re.match(like, words) is not None for words in body)


def _round(
    loop: Sequence[tuple[int, str]], loops: Sequence[Sequence[tuple[int, str]]], jumped: str
) -> list[str]:
    """Instructions of a loop without those of loops inside it or skipped by branches `jumped`; branches go to
    its start."""
    first, last = loop[0][0], loop[-1][0]
    left_out = {at for one in loops for at, _ in one if first < one[0][0] and one[-1][0] < last}
    for at, words in loop:
        branch = _BRANCH.match(words)
        if jumped and branch is not None and branch[2] is not None and re.match(jumped, words):
            left_out |= {skipped for skipped, _ in loop if at < skipped < int(branch[2], 16)}
    return [_BRANCH.sub(_to_start, words) for at, words in loop if at not in left_out]


_BRANCH = re.compile(r"^(b|bl|blr|br|ret|b\.\w+|cbn?z \w+,|tbn?z \w+, #\w+,)(?: +([0-9a-f]+) <.*)?$")


def _to_start(branch: re.Match[str]) -> str:
    return f"{branch[1]} .Lloop"


def _loops(text: str) -> Iterator[tuple[str, list[tuple[int, str]]]]:
    """Function, and instructions with their addresses from the target of a backward branch up to it."""
    name: str | None = None
    body: list[tuple[int, str]] = []
    for line in text.splitlines():
        if line.endswith(">:"):
            function = re.search(r"rl::neon::(\w+(?:<[^>]+>)?)\(", line)
            name, body = function[1] if function else None, []
        instruction = re.match(r"\s*([0-9a-f]+):\s+(\S+)\s*([^/]*)", line)
        if instruction is None or name is None:
            continue
        here = int(instruction[1], 16)
        body.append((here, f"{instruction[2]} {instruction[3].strip()}"))
        back = re.match(r"(?:b\.\w+|cbn?z \w+,) *([0-9a-f]+) <", body[-1][1])
        if back is not None and int(back[1], 16) < here:
            yield name, [(at, words) for at, words in body if at >= int(back[1], 16)]


def simulate(body: Sequence[str]) -> float:
    """Cycles of one round of the loop in the steady state."""
    assembly = "\n".join([".Lloop:", *body, ""])
    command = [SIMULATOR, "-mtriple=aarch64-linux-gnu", "-mcpu=neoverse-n1", f"-iterations={ITERATIONS}"]
    done = subprocess.run(command, input=assembly, capture_output=True, text=True)
    assert done.returncode == 0, f"{SIMULATOR} cannot read a loop: {done.stderr}"
    total = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    assert total is not None, "llvm-mca printed no cycles"
    return int(total[1]) / ITERATIONS


def drift(loops: Sequence[Loop], around: dict[str, float]) -> list[str]:
    """Where the tables in rockledge/board differ from the kernel."""
    recorded = {(STREAMED, bits, rows): cycles for (bits, rows), cycles in TILE_CYCLES.items()}
    recorded |= {(UNPACKED, bits, 0): cycles for bits, cycles in UNPACK_CYCLES.items()}
    recorded |= {(APART, bits, 0): cycles for bits, cycles in APART_CYCLES.items()}
    recorded[PRODUCT, 8, 8] = TILE_WEIGHTS * 8 / PREFILL_MACS_PER_CYCLE
    found = {(loop.work, loop.bits, loop.rows): loop.cycles for loop in loops}
    drifted = [
        f"{name}: the table has {cycles:.2f} cycles, the kernel {around[name]:.2f}"
        for name, cycles in LOOP_CYCLES.items()
        if abs(around[name] / cycles - 1) > TOLERANCE
    ]
    return drifted + [
        f"{work} at {bits} bits, {rows} rows: the table has {cycles:.2f} cycles, the kernel {found[key]:.2f}"
        for key, cycles in recorded.items()
        for work, bits, rows in [key]
        if abs(found[key] / cycles - 1) > TOLERANCE
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints every loop; 1 when a tool is missing or the table has drifted."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.kernel_cycles", description="cycles of the A76 loops"
    )
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    if missing := missing_tools():
        names = ", ".join(missing)
        print(f"{names} not found: install Debian's g++-aarch64-linux-gnu and llvm-19", file=sys.stderr)
        return 1
    try:
        loops, around = measure(), measure_around()
    except LoopNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    if chosen.json:
        json.dump({"loops": [asdict(loop) for loop in loops], "around": around}, sys.stdout)
        print()
    else:
        print("work      bits  rows  instructions  cycles a tile  a weight  MAC/cycle  GB/s, 4 cores")
        for loop in loops:
            print(
                f"{loop.work:<9}{loop.bits:5}{loop.rows or '-':>6}{loop.instructions:14.1f}"
                f"{loop.cycles:15.2f}{loop.cycles / TILE_WEIGHTS:10.4f}"
                f"{loop.macs_per_cycle or '-':>11}{loop.code_gb_s or '-':>12}"
            )
        print("\nloops around products, cycles a round")
        for name, cycles in around.items():
            print(f"{name:<24}{cycles:8.2f}")
    drifted = drift(loops, around)
    for sentence in drifted:
        print(sentence, file=sys.stderr)
    return int(bool(drifted))


if __name__ == "__main__":
    sys.exit(main())
