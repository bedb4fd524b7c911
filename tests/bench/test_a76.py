"""Counts of the A76 bench: what the plugin writes, how it is named, and what the goals make of it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from bench.a76.__main__ import Goal, goals
from bench.a76.counts import Mapped, Names, by_function, per_token, read_phases

LISTING = """\
0000000000000100 t void rl::neon::stream_row<4>(unsigned char const*, int)
0000000000000140 t $x
0000000000000200 T rl_page_bytes
0000000000000300 t rl::Program::work(unsigned int, unsigned int, int)
0000000000000400 d rl::(anonymous namespace)::table
"""
COUNTS = """\
phase 0 5
1100 5
phase 1 30
1100 20
1200 10
phase 5 1
1300 1
phase 2 92
1100 80
1200 10
9000 2
phase 5 1
1300 1
"""


def test_blocks_are_summed_by_phase() -> None:
    phases = read_phases(COUNTS.splitlines())
    assert phases[1] == {0x1100: 20, 0x1200: 10}
    assert phases[5] == {0x1300: 2}


def test_a_token_costs_what_the_longer_phase_has_more() -> None:
    phases = read_phases(COUNTS.splitlines())
    assert per_token(phases[1], phases[2], 4) == {0x1100: 15.0, 0x9000: 0.5}


def test_blocks_are_named_by_library_and_function() -> None:
    maps = [Mapped(0x1000, 0x2000, 0, "/build/librockledge.so"), Mapped(0x9000, 0xA000, 0, "/usr/libc.so.6")]
    names = {"librockledge.so": Names.of(LISTING)}
    blocks = {0x1110: 1.0, 0x1204: 2.0, 0x1350: 4.0, 0x1360: 8.0, 0x9004: 16.0, 0xF000: 32.0}
    assert by_function(blocks, maps, names) == {
        "?": 32.0,
        "libc.so.6": 16.0,
        "Program::work": 12.0,
        "rl_page_bytes": 2.0,
        "stream_row<4>": 1.0,
    }


def test_goals_bound_from_both_sides() -> None:
    counted = {"decode": {"ratio": 1.31}, "prefill": {"ratio": 0.9}}
    loop = {"work": "decode", "rows": 1, "bits": 4, "code_gb_s": 39.9, "macs_per_cycle": 9.0}
    product = {"work": "multiply", "rows": 8, "bits": 8, "code_gb_s": 0.0, "macs_per_cycle": 28.0}
    assert [goal.met for goal in goals(counted, [loop, product])] == [False, True, False, True]
    assert Goal("between", 2.0, least=1.0, most=3.0).met


@pytest.mark.arm
def test_the_plugin_counts_phases(tmp_path: Path) -> None:
    """A loop of known length: twice the rounds, twice the instructions, to the last one."""
    source = tmp_path / "loop.c"
    source.write_text(
        "#include <sys/resource.h>\n"
        'static void spin(long n) { __asm__ volatile("1: subs %0, %0, #1\\n b.ne 1b" : "+r"(n)); }\n'
        "int main(void) { getpriority(0x726b, 1); spin(1000); getpriority(0x726b, 2); spin(3000);\n"
        "  getpriority(0x726b, 3); return 0; }\n"
    )
    program, plugin, counts = tmp_path / "loop", tmp_path / "count.so", tmp_path / "counts"
    compiler = shutil.which("aarch64-linux-gnu-gcc") or "aarch64-linux-gnu-g++"
    subprocess.run([compiler, "-O1", "-static", source, "-o", program], check=True)
    plugin_source = Path(__file__).parents[2] / "bench/a76/count.c"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", plugin_source, "-o", plugin], check=True)
    command = ["qemu-aarch64", "-cpu", "cortex-a76", "-plugin", f"{plugin},out={counts}", program]
    subprocess.run(command, check=True)
    phases = read_phases(counts.read_text().splitlines())
    assert sum(phases[2].values()) - sum(phases[1].values()) == 2 * 2000
