"""The estimate knows what is saved by steps, and that an 8B fits the memory it is promised to."""

from collections.abc import Mapping

import pytest

from rockledge.quantization.estimate import Estimate, Speed, estimate_run, measured_speed
from rockledge.quantization.request import default_tokens
from rockledge.quantization.steps import FAST, Steps
from rockledge.synth import SHAPES

SPEED = Speed(products=1e11, seconds_per_number=1e-9)


def estimated(
    shape: str, steps: Steps, speed: Speed = SPEED, done: Mapping[str, float] | None = None
) -> Estimate:
    config = SHAPES[shape]
    tokens = default_tokens(config, steps)
    return estimate_run(
        config,
        10**9,
        tokens=tokens,
        gradient_tokens=tokens // 3,
        widths=(3, 4, 8),
        steps=steps,
        speed=speed,
        done=done,
    )


def test_the_fast_recipe_takes_a_part_of_the_time() -> None:
    assert estimated("8b", FAST).seconds < 0.5 * estimated("8b", Steps()).seconds


def test_an_8b_stays_below_8_gigabytes() -> None:
    for steps in (Steps(), FAST):
        assert 4e9 < estimated("8b", steps).peak_memory_bytes <= 8e9


def test_a_small_model_takes_little_more_than_the_program() -> None:
    assert estimated("135m", Steps()).peak_memory_bytes < 1.5e9


def test_a_machine_half_as_fast_takes_twice_as_long() -> None:
    slow = Speed(SPEED.products / 2, 2 * SPEED.seconds_per_number)
    for stage, seconds in estimated("8b", Steps(), slow).stages.items():
        assert seconds == pytest.approx(2 * estimated("8b", Steps()).stages[stage])


def test_what_is_done_already_takes_no_time() -> None:
    whole, rest = (estimated("8b", Steps(), done=done) for done in (None, {"forward": 1.0, "round": 0.75}))
    saved = whole.stages["forward"] + 0.75 * whole.stages["round"]
    assert whole.seconds - rest.seconds == pytest.approx(saved)


def test_the_speed_of_this_machine_is_plausible() -> None:
    speed = measured_speed("cpu")
    assert 1e7 < speed.products < 1e14
    assert 1e-12 < speed.seconds_per_number < 1e-6
