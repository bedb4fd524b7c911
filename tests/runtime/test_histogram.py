"""Histograms against NumPy's."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rockledge.runtime.histogram import Observed

BOUNDS = (0.5, 1.0, 2.0)


@given(st.lists(st.floats(0, 4) | st.sampled_from(BOUNDS), max_size=30))
def test_values_are_counted_by_the_first_bound_that_is_not_below_them(values: list[float]) -> None:
    observed = Observed(BOUNDS)
    for value in values:
        observed.add(value)
    found = observed.histogram()
    # Prometheus's buckets have their upper bound in them, NumPy's the lower one.
    edges = [-np.inf, *(np.nextafter(bound, np.inf) for bound in BOUNDS), np.inf]
    assert list(found.counts) == np.histogram(values, edges)[0].tolist()
    assert found.total == sum(values)
