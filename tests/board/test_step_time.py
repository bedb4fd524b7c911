"""Fixed costs of a step: only where they were measured, and for what a model has."""

from dataclasses import replace

import pytest

from rockledge.board.boards import Board, find_board
from rockledge.board.facts import Fact
from rockledge.board.step_time import (
    DRAW,
    OPERATION,
    SEQUENCE,
    STEP,
    STEP_FACTS,
    has_step_facts,
    prompt_costs,
    step_seconds,
)
from rockledge.synth import SHAPES

CONFIG = SHAPES["135m"]
BANDS = ((4, 576, 576), (4, 49152, 576))


def board(**values: float) -> Board:
    """The Raspberry Pi 5 with costs that are as good as nothing, but for `values`."""
    known = find_board("rpi5-8gb")
    least = {"s": 1e-9, "cycles/element": 1e-3, "cycles/score": 1e-3, "cycles/MAC": 1e-4}
    facts = {
        name: Fact(values.get(name, least[unit]), unit, "chosen for a test", "measured here")
        for name, unit in STEP_FACTS.items()
    }
    return replace(known, facts={**known.facts, **facts})


def seconds(of: Board, config: object = CONFIG, *, sequences: int = 1, after: int = 0) -> float:
    return step_seconds(of, config, BANDS, sequences=sequences, after=after)  # type: ignore[arg-type]


def test_a_board_from_publications_has_none() -> None:
    assert not has_step_facts(find_board("rk3588-8gb"))
    assert has_step_facts(board())
    assert prompt_costs(find_board("rk3588-8gb"), CONFIG, 128, steps=1, on_cpu=True) == 0.0


def test_each_cost_counts_as_often_as_it_is_met() -> None:
    none = seconds(board())
    assert seconds(board(**{STEP: 1.0})) - none == pytest.approx(1.0)
    assert seconds(board(**{SEQUENCE: 1.0}), sequences=3) - seconds(board(), sequences=3) == pytest.approx(
        3.0
    )
    assert seconds(board(**{OPERATION: 1.0})) - none == pytest.approx(5 * CONFIG.layers + 1)
    prompt = prompt_costs(board(**{OPERATION: 1.0}), CONFIG, 300, steps=2, on_cpu=False)
    assert prompt == pytest.approx(2 * 10 * CONFIG.layers, rel=1e-3)


def test_four_cores_draw_four_tokens_in_the_time_of_one() -> None:
    slow = board(**{DRAW: 1e5})
    draw = CONFIG.vocab * 1e5 / slow.value("cpu_hz")
    for sequences, rounds in ((1, 1), (4, 1), (5, 2)):
        found = seconds(slow, sequences=sequences) - seconds(board(), sequences=sequences)
        assert found == pytest.approx(rounds * draw, rel=1e-3)
    headless = replace(CONFIG, headless=True)
    assert seconds(slow, headless) == pytest.approx(seconds(board(), headless))


def test_a_window_bounds_what_attention_costs() -> None:
    windowed = replace(CONFIG, windows=(64,) * CONFIG.layers)
    slow = board(cpu_decode_attention_cycles_per_score=100.0)
    assert seconds(slow, windowed, after=4000) == pytest.approx(seconds(slow, windowed, after=100))
    assert seconds(slow, after=4000) > 5 * seconds(slow, windowed, after=4000)
