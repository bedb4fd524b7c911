"""A plan after an hour: what each cooling leaves, and boards of which too little is known."""

from rockledge.board.boards import find_board
from rockledge.model.known_shapes import KNOWN_SHAPES
from rockledge.planning.plan import Plan
from rockledge.planning.warm import warm_plans


def test_after_an_hour_by_cooling() -> None:
    plan = Plan("llama-3-8b", KNOWN_SHAPES["llama-3-8b"].config, find_board("rk3588-8gb"), 8192, 1)
    found = {one.cooling.name: one for one in warm_plans(plan, ambient=45.0)}
    assert set(found) == {"passive", "heat-sink", "fan", "bare"}
    cold = plan.speed.decode(8192)
    fan, passive = found["fan"].decode, found["passive"].decode
    assert fan is not None
    assert passive is not None
    assert fan.cold == fan.governed == fan.ungoverned == cold
    assert passive.governed.likely < cold.likely
    assert passive.celsius > 75 > fan.celsius
    (alone,) = warm_plans(plan, "passive", 45.0)
    assert alone == found["passive"]
    assert alone.prefill.cold == plan.speed.prefill(1000)


def test_a_chip_whose_heat_is_not_known_has_no_later() -> None:
    plan = Plan("qwen3-4b", KNOWN_SHAPES["qwen3-4b"].config, find_board("rpi5-8gb"), 8192, 1)
    assert warm_plans(plan) == []
