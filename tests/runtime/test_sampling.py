"""Settings of sampling that make no sense."""

import math

import pytest

from rockledge.errors import UsageError
from rockledge.runtime.sampling import Sampling


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": math.nan},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"min_p": -0.1},
        {"logit_bias": ((3, math.nan),)},
        {"logit_bias": ((3, 1e300),)},
    ],
)
def test_senseless_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(settings))):
        Sampling(**settings)  # type: ignore[arg-type]


def test_seeds() -> None:
    assert Sampling(seed=-1).seed_or_fresh() == 2**64 - 1
    assert len({Sampling().seed_or_fresh() for _ in range(8)}) > 1
