"""Trying the programs of a model takes less than two seconds of its loading, by the time formula."""

import pytest

from bench.npu_trial import MODELS, trial
from rockledge.board.boards import find_board


@pytest.mark.parametrize("model", MODELS)
def test_it_takes_less_than_two_seconds(model: str) -> None:
    took = trial(find_board("rk3588-8gb"), model)
    assert took.programs >= 4
    assert min(took.jobs, took.operands, took.compared) > 0
    assert took.seconds < 2
