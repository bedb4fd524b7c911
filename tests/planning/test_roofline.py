"""The roofline: no point is above its roof."""

import pytest

from rockledge.board.boards import find_board
from rockledge.model.known_shapes import KNOWN_SHAPES
from rockledge.planning.plan import Plan
from rockledge.planning.roofline import points, roofs


@pytest.mark.parametrize("board, model", [("rk3588-8gb", "llama-3-8b"), ("rpi5-8gb", "qwen3-1.7b")])
def test_points_lie_under_a_roof(board: str, model: str) -> None:
    plan = Plan(model, KNOWN_SHAPES[model].config, find_board(board), 4096, 1)
    above = roofs(plan.board)
    assert [roof.name for roof in above] == (["CPU", "NPU"] if plan.board.has_npu else ["CPU"])
    found = list(points(plan, (1, 4), (64, 512)))
    assert [point.name for point in found] == ["decode, 1", "decode, 4", "prompt of 64", "prompt of 512"]
    for point in found:
        highest = max(min(roof.products, point.intensity * roof.bandwidth) for roof in above)
        assert 0 < point.products <= highest * (1 + 1e-9), point.name
