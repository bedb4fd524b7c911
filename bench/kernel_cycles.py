"""Counts the instructions of the A76 decode loops as compiled, for the table in rockledge/board/cycles.py.

    python -m bench.kernel_cycles

Cross-compiles native/neon.cpp with the flags of the build, takes the innermost loops that decode one 8 x 32
tile and sorts their instructions by the resource they occupy on the core. Needs aarch64-linux-gnu-g++ and its
objdump. Exits 1 when the table no longer describes the kernel.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from rockledge.board.boards import find_board
from rockledge.board.cycles import DOT_LOOP, STRIP_LOOPS, TILE_WEIGHTS, UNPACK_LOOPS, TileCost, tile_cycles

FLAGS = ("-std=c++20", "-O3", "-ffp-contract=off", "-march=armv8.2-a+dotprod+fp16")
SOURCE = Path(__file__).parent.parent / "native" / "neon.cpp"
Instruction = tuple[int, str, str]


def main() -> int:
    """Prints every loop's counts beside the table's; 1 when they differ."""
    found = set(map(count, tile_loops(disassembly())))
    table = {f"strip {bits}": cost for bits, cost in STRIP_LOOPS.items()}
    table |= {f"unpack {bits}": cost for bits, cost in UNPACK_LOOPS.items()}
    table["dot"] = DOT_LOOP
    board = find_board("rk3588-8gb")
    for name, cost in table.items():
        cycles = tile_cycles(cost, board)
        mark = "" if cost in found else "   not in the compiled kernel"
        print(f"{name:<10}{cycles:6.1f} cycles, {cycles / TILE_WEIGHTS:.4f} a weight  {cost}{mark}")
    for cost in found - set(table.values()):
        print(f"not in the table: {cost}")
    return int(found != set(table.values()))


def disassembly() -> str:
    """objdump of the compiled kernel file."""
    with tempfile.TemporaryDirectory() as folder:
        target = f"{folder}/neon.o"
        subprocess.run(["aarch64-linux-gnu-g++", *FLAGS, "-c", str(SOURCE), "-o", target], check=True)
        objdump = ["aarch64-linux-gnu-objdump", "-d", "--no-show-raw-insn", target]
        return subprocess.run(objdump, check=True, capture_output=True, text=True).stdout


def tile_loops(text: str) -> Iterator[list[Instruction]]:
    """Innermost loops of `linear` that handle 16 row-groups: 16 table lookups, 16 dot products or both."""
    body: list[Instruction] = []
    inside = False
    for line in text.splitlines():
        if line.endswith(">:"):
            body, inside = [], bool(re.search(r"neonL(6linear|4dot8)E", line))
        found = re.match(r"\s*([0-9a-f]+):\s+(\S+)\s*(.*)", line)
        if found is None or not inside:
            continue
        address = int(found[1], 16)
        body.append((address, found[2], found[3]))
        target = re.search(r"\b([0-9a-f]+) <", found[3])
        if not (found[2].startswith(("b.", "cb")) and target and int(target[1], 16) < address):
            continue
        loop = [i for i in body if i[0] >= int(target[1], 16)]
        names = [name for _, name, _ in loop]
        straight = not any(name.startswith(("b", "cb", "ret")) and name != "bit" for name in names[:-1])
        copied = sum(_vectors(name, operands) for _, name, operands in loop if name.startswith("st"))
        if straight and 16 in (names.count("tbl"), names.count("sdot"), copied):
            yield loop


def _vectors(name: str, operands: str) -> int:
    """How many 128-bit registers a load or store moves."""
    return (2 if name in ("ldp", "stp") else 1) if operands.startswith("q") else 0


def count(loop: Sequence[Instruction]) -> TileCost:
    """The loop's instructions by resource; a pair load or store takes its pipe twice."""
    moves = vector = shifts = 0
    for _, name, operands in loop:
        if name.startswith(("ld", "st", "prfm")):
            moves += 2 if name in ("ldp", "stp") else 1
        elif re.search(r"\bv\d+\.", operands):
            vector += 1
            shifts += name in ("ushr", "shl", "ushl")
    return TileCost(moves=moves, vector=vector, shifts=shifts, instructions=len(loop))


if __name__ == "__main__":
    sys.exit(main())
