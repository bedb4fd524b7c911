"""The plans that docs/npu.md shows are those that are made."""

import re
from pathlib import Path

import pytest
from tests.runtime.offload.linear_lists import linears_like

from rockledge.board.boards import find_board
from rockledge.board.memory import working_bytes
from rockledge.runtime.offload.budget import largest_plan, npu_budget
from rockledge.synth import SHAPES

BOARD = find_board("rk3588-8gb")
PAGE = (Path(__file__).parents[3] / "docs" / "npu.md").read_text()
# Name on the page, shape, tokens of context, bytes of weights at 4.25 bits.
SHOWN = (
    ("SmolLM2-135M", "135m", 4096, 75e6),
    ("Llama-3.2-1B", "1b", 4096, 660e6),
    ("Llama-3.1-8B", "8b", 8192, 4.2725e9),
)


@pytest.mark.parametrize("name, shape, context, weights", SHOWN)
def test_the_table_of_plans(name: str, shape: str, context: int, weights: float) -> None:
    row = re.search(rf"^\| {re.escape(name)}[^|]*\|([^|]*)\|([^|]*)\|([^|]*)\|([^|]*)\|$", PAGE, re.MULTILINE)
    assert row is not None
    config = SHAPES[shape]

    def budget(rows: int) -> int:
        others = int(weights) + working_bytes(config, rows, context, 4)
        return npu_budget(
            BOARD, config, context=context, rows=rows, weights=int(weights), others=others, memory=None,
            free=None,
        )  # fmt: skip

    plan = largest_plan(linears_like(shape), lanes=3, spaces=1, board=BOARD, context=context, budget=budget)
    size, unit = re.match(r" ([\d.]+) (MB|GB)", row[1]).groups()  # type: ignore[union-attr]
    assert plan.bytes == pytest.approx(float(size) * {"MB": 1e6, "GB": 1e9}[unit], rel=0.01)
    assert row[2].strip() == f"{plan.pinned} of {len(plan.block_slot)}"
    assert row[3].strip() == f"up to {plan.steps[-1]}"
    assert row[4].strip() == f"{plan.from_rows} tokens"
