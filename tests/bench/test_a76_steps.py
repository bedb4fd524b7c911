"""Instructions of steps from what the counting plugin wrote, by hand."""

from collections import Counter
from pathlib import Path

from bench.a76.counts import Mapped, Names
from bench.a76.emulator import Run
from bench.a76.steps import FEW, MANY, by_rows, summary, table


def test_steps_cost_what_more_of_them_add() -> None:
    more = MANY - FEW
    phases = {
        1: Counter({0x1000: 700}),
        2: Counter({0x1000: 700 + 10_000 * more}),
        3: Counter({0x1000: 900, 0x1100: 5}),
        4: Counter({0x1000: 900 + 15_000 * more, 0x1100: 5 + 6_000 * more}),
    }
    names = Names((0x0, 0x100), ("linear", "sample"))
    found = by_rows(Run(phases, (Mapped(0x1000, 0x2000, 0, "/lib/core.so"),), {"core.so": names}))
    assert found == {1: {"linear": 10_000.0}, 4: {"linear": 15_000.0, "sample": 6_000.0}}
    result = summary(Path("model"), found)
    assert result["ratio"] == 2.1
    assert result["instructions"] == {"1": 10_000, "4": 21_000}
    assert "4 rows take 2.10 times the instructions of 1 (goal: 2.1)" in table(result)
