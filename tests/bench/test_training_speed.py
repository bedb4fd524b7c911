"""What the bench of training speed measures, on a model of seconds."""

from dataclasses import replace

import pytest

pytest.importorskip("accelerate")


@pytest.mark.slow
def test_checkpointing_takes_less_memory_where_activations_are_most_of_it() -> None:
    from bench.training_speed import SHAPE, lines, measured

    small = replace(SHAPE, hidden=128, ffn=352, heads=2, kv_heads=2, layers=4, vocab=500)
    rows = [measured(small, checkpointing=one, sequence=512, count=1) for one in (False, True)]
    parameters = 4 * 4 * (4 * 128 * 128 + 3 * 128 * 352)  # bytes of the matrices of all layers
    assert 5 * parameters < rows[1].peak < rows[0].peak  # weights of two, gradients, states
    assert min(row.tokens_per_second for row in rows) > 0
    assert lines(rows)[2].startswith("| no | ")
