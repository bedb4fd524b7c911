"""The estimate knows what is saved by steps, and that an 8B fits the memory it is promised to."""

from rockledge.quantization.estimate import Estimate, estimate_run
from rockledge.quantization.request import default_tokens
from rockledge.quantization.steps import FAST, Steps
from rockledge.synth import SHAPES


def estimated(shape: str, steps: Steps) -> Estimate:
    config = SHAPES[shape]
    tokens = default_tokens(config, steps)
    return estimate_run(
        config, 10**9, tokens=tokens, gradient_tokens=tokens // 3, widths=(3, 4, 8), steps=steps
    )


def test_the_fast_recipe_takes_a_part_of_the_time() -> None:
    assert estimated("8b", FAST).seconds < 0.5 * estimated("8b", Steps()).seconds


def test_an_8b_stays_below_8_gigabytes() -> None:
    for steps in (Steps(), FAST):
        assert 4e9 < estimated("8b", steps).peak_memory_bytes <= 8e9


def test_a_small_model_takes_little_more_than_the_program() -> None:
    assert estimated("135m", Steps()).peak_memory_bytes < 1.5e9
