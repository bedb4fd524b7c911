"""The CPU beside the NPU: what the driver prints, rates by hand, and the stored result."""

import json

import pytest

from bench import npu_cpu
from bench.npu_work.driver import Found, parse, rates
from rockledge.board.boards import find_board
from rockledge.board.npu_facts import APART_CYCLES, EPILOGUE_INSTRUCTIONS
from rockledge.board.prefill import BESIDE, BUS, NPU
from rockledge.runtime.offload.prompt_time import ATTENTION, OTHER_CPU

BOARD = find_board("rk3588-8gb")


def test_the_drivers_lines() -> None:
    found = parse("write\t4000\t1000\nunpack 4\t3000\t1500\n")
    assert found == {"write": Found(4000, 1000), "unpack 4": Found(3000, 1500)}
    assert rates(found) == {"write": 4.0, "unpack 4": 2.0}
    assert found["unpack 4"].each == 0.5


def test_unpacking_by_hand() -> None:
    """256 weights in so many cycles at 2.2 GHz; memory moves 0.53 bytes of codes for each byte written."""
    counted = {f"unpack {bits}": Found(1024, 320) for bits in npu_cpu.BITS}
    four = next(one for one in npu_cpu.unpacking(BOARD, counted) if one["bits"] == 4)
    assert four["instructions_per_tile"] == 80
    assert four["core_gb_s"] == pytest.approx(256 / APART_CYCLES[4] * 2.2, abs=0.06)
    assert four["four_cores_gb_s"] == pytest.approx(4 * four["core_gb_s"], abs=0.3)
    assert four["bandwidth_gb_s"] == pytest.approx(26 / (1 + 0.5 + 8 / 256), abs=0.06)


@pytest.mark.parametrize("change, drifts", [(1.0, 0), (1.1, 1)])
def test_facts_that_are_not_counted_are_named(change: float, drifts: int) -> None:
    one, part = EPILOGUE_INSTRUCTIONS
    counted = {
        "finish, 1 part, residual": Found(1_000_000, round(1_000_000 * one * change)),
        "finish, 3 parts, residual": Found(1_000_000, round(1_000_000 * (one * change + 2 * part))),
    }
    assert len(npu_cpu.drift(counted)) == drifts


def test_the_cpus_work_fits_under_the_npus() -> None:
    assert npu_cpu.fits({NPU: 2.0, BUS: 1.0, BESIDE: 1.9})
    assert npu_cpu.fits({NPU: 1.0, BUS: 2.0, BESIDE: 1.9})
    assert not npu_cpu.fits({NPU: 2.0, BUS: 1.0, BESIDE: 2.1})
    assert all(row["fits"] for row in npu_cpu.beside(BOARD, ["1b"]))


def test_the_stored_result_is_todays() -> None:
    stored = json.loads(npu_cpu.RESULTS.read_text(encoding="utf-8"))
    assert stored["a76_beside"] == npu_cpu.beside(BOARD)
    assert stored["drifted"] == []
    for one in stored["a76_unpacking"]:
        assert one["cycles_per_tile"] == APART_CYCLES[one["bits"]] >= one["instructions_per_tile"] / 4
        # Memory binds, not the cores.
        assert one["four_cores_gb_s"] > one["bandwidth_gb_s"]


def test_the_documented_tables_are_the_stored_result() -> None:
    stored = json.loads(npu_cpu.RESULTS.read_text(encoding="utf-8"))
    page = (npu_cpu.RESULTS.parents[2] / "docs" / "npu.md").read_text(encoding="utf-8")
    for row in stored["a76_beside"]:
        spent = [row["alone_us"][side] for side in (NPU, BUS, BESIDE)]
        spent += [row["in_turn_us"][part] for part in (ATTENTION, OTHER_CPU)]
        assert (
            "| ".join([f"| {row['model'].upper()} ", *(f"{micros:.0f} " for micros in spent)]) + "|" in page
        )
    for one in stored["a76_unpacking"]:
        cells = (
            f"{one['bits']}",
            f"{one['instructions_per_tile']:.0f}",
            f"{one['cycles_per_tile']:.1f}",
            f"{one['core_gb_s']}",
            f"{one['four_cores_gb_s']:.0f}",
        )
        assert f"| {' | '.join(cells)} |" in page
