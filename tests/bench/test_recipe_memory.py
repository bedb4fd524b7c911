"""The dry run of a recipe of pruning is within a tenth of what a smaller shape of it takes."""

from pathlib import Path

import pytest

pytest.importorskip("accelerate")


@pytest.mark.slow
def test_the_dry_run_of_the_recipe_is_what_steps_allocate() -> None:
    from bench.recipe_memory import GOAL, RECIPE, compared

    found = compared(RECIPE, 8)
    assert abs(found.off) < GOAL, found


def test_a_smaller_recipe_keeps_the_settings(tmp_path: Path) -> None:
    from bench.recipe_memory import RECIPE, smaller

    found = smaller(RECIPE, 8, tmp_path)
    asked = found.settings
    assert (asked.bf16, asked.checkpointing, asked.top_k, asked.micro_batch) == (True, True, 128, 1)
    assert (found.teacher.hidden, found.student.hidden, found.student.ffn) == (512, 384, 1152)
    assert found.body()["memory_gb_per_gpu"]["fits"]
