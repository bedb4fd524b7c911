"""Cycles of the A76 loops: how loops are found, and that the board's facts are those of today's kernel."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench import kernel_cycles
from rockledge.board.boards import find_board
from rockledge.board.cycles import TILE_CYCLES
from rockledge.board.npu_facts import LOOP_CYCLES, SPLIT, VALUE_QUERIES

LISTING = """
0000000000000000 <void rl::neon::stream_row<4>(unsigned char const*)>:
   0:	movi	v0.4s, #0x0
   4:	ldr	q1, [x0], #16
   8:	sdot	v0.4s, v1.16b, v2.16b
   c:	cmp	x0, x1
  10:	b.ne	4 <void rl::neon::stream_row<4>(unsigned char const*)+0x4>  // b.any
  14:	cbnz	x3, 0 <void rl::neon::stream_row<4>(unsigned char const*)>
  18:	ret
000000000000001c <rl::neon::norm(float const*)>:
  1c:	subs	w0, w0, #0x1
  20:	b.ne	1c <rl::neon::norm(float const*)>  // b.any
"""


def test_inner_loops_are_found_by_function() -> None:
    """The loop around another one is not an inner loop; only templates are asked for."""
    assert kernel_cycles.inner_loops(LISTING) == {
        "stream_row<4>": [
            "ldr q1, [x0], #16",
            "sdot v0.4s, v1.16b, v2.16b",
            "cmp x0, x1",
            "b.ne .Lloop",
        ]
    }


WALK = """
0000000000000000 <void rl::neon::walk<4>(float const*)>:
   0:	cbz	x4, c <void rl::neon::walk<4>(float const*)+0xc>
   4:	ldr	q1, [x2]
   8:	fadd	v0.4s, v0.4s, v1.4s
   c:	fmul	v0.4s, v0.4s, v2.4s
  10:	ldr	q3, [x5], #16
  14:	cmp	x5, x6
  18:	b.ne	10 <void rl::neon::walk<4>(float const*)+0x10>  // b.any
  1c:	sxtl	v0.8h, v0.8b
  20:	cbnz	x3, 0 <void rl::neon::walk<4>(float const*)>
  24:	fadd	v7.4s, v7.4s, v6.4s
  28:	fadd	v7.4s, v7.4s, v6.4s
  2c:	cbnz	x7, 24 <void rl::neon::walk<4>(float const*)+0x24>
"""


def test_a_loop_is_found_by_what_it_contains() -> None:
    """Without the loop inside it; a branch over what rarely happens is taken where the mark says so."""
    both_ways = kernel_cycles.marked(WALK, kernel_cycles.Mark("walk<4>", {"fmul": 1}))
    assert [words.split()[0] for words in both_ways] == ["cbz", "ldr", "fadd", "fmul", "sxtl", "cbnz"]
    assert "sxtl v0.8h, v0.8b" in both_ways
    jumping = kernel_cycles.marked(WALK, kernel_cycles.Mark("walk<4>", {"fmul": 1, "fadd": 0}, jumped="cbz"))
    assert [words.split()[0] for words in jumping] == ["cbz", "fmul", "sxtl", "cbnz"]
    assert kernel_cycles.marked(WALK, kernel_cycles.Mark("walk<4>", {"fadd": 2}))[-1] == "cbnz x7, .Lloop"


def test_a_loop_that_does_something_else_is_named_with_what_it_has() -> None:
    """A kernel rewritten is not measured by whichever loop now stands in the old one's place."""
    with pytest.raises(
        kernel_cycles.LoopNotFoundError, match=r"walk<4> has no loop with {'fadd': 3}.*{'fadd': 2}"
    ):
        kernel_cycles.marked(WALK, kernel_cycles.Mark("walk<4>", {"fadd": 3}))


def test_missing_tools_are_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.kernel_cycles"],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "llvm-mca-19" in done.stderr
    assert "aarch64-linux-gnu-g++" in done.stderr


def compiler_of_the_facts() -> bool:
    """Other versions give out registers differently, and the loops take a few cycles more or less."""
    if kernel_cycles.missing_tools():
        return False
    version = subprocess.run([kernel_cycles.COMPILER, "-dumpversion"], capture_output=True, text=True)
    return version.stdout.startswith("12")


@pytest.mark.skipif(not compiler_of_the_facts(), reason="needs llvm-mca-19 and GCC 12 for aarch64")
def test_the_facts_are_those_of_the_kernel() -> None:
    """Also the goals: four cores consume 40 GB/s of 4 and 8-bit codes, prefill 85 % of the pipes."""
    loops = kernel_cycles.measure()
    around = kernel_cycles.measure_around()
    assert set(LOOP_CYCLES) == set(around)
    assert kernel_cycles.drift(loops, around) == []
    by_key = {(loop.work, loop.bits, loop.rows): loop for loop in loops}
    assert by_key["decode", 4, 1].code_gb_s >= 40
    assert by_key["decode", 8, 1].code_gb_s >= 40
    assert by_key["multiply", 8, 8].macs_per_cycle >= 0.85 * 32
    for bits, rows in TILE_CYCLES:
        loop = by_key["decode", bits, rows]
        assert loop.cycles >= max(loop.instructions / 4, loop.simulated_cycles) - 0.01


def test_what_attention_shares_is_what_the_kernel_has() -> None:
    native = kernel_cycles.TREE / "native"
    text = "".join((native / name).read_text(encoding="utf-8") for name in ("kernels.hpp", "neon.cpp"))
    queries, split = (
        int(found[1])
        for name in ("kValueQueries", "kSplit")
        if (found := re.search(rf"constexpr int [^;]*\b{name} = (\d+)", text)) is not None
    )
    assert (queries, split) == (VALUE_QUERIES, SPLIT)


def test_attention_takes_at_most_19_cycles_a_score_of_128_inputs() -> None:
    board = find_board("rk3588-8gb")
    score, dot, value = (
        board.value(f"cpu_attention_cycles_per_{part}") for part in ("score", "score_mac", "value_mac")
    )
    assert score + 128 * (dot + value) <= 19
