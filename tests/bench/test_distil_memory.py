"""The memory formula of distillation is within a tenth of what PyTorch allocates in real steps."""

import pytest

pytest.importorskip("accelerate")


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_formula_is_what_steps_allocate(checkpointing: bool) -> None:
    from dataclasses import replace

    from bench.distil_memory import GOAL, STUDENT, TEACHER, measured

    student, teacher = (replace(shape, vocab=2048, layers=6) for shape in (STUDENT, TEACHER))
    row = measured(False, checkpointing, True, student=student, teacher=teacher)
    assert abs(row.off) < GOAL, row
