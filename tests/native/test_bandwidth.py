"""The read bandwidth that speeds are compared with: a number of the right kind, and what is refused."""

import pytest

from rockledge.errors import NativeError
from rockledge.runtime.native import read_bandwidth

MEGABYTE = 1 << 20


@pytest.mark.parametrize("huge", [False, True])
@pytest.mark.parametrize("threads", [1, 3])
def test_memory_is_read_at_a_rate_that_memory_has(threads: int, huge: bool) -> None:
    # From a slow board with other work to the caches of a large machine.
    assert 1e7 < read_bandwidth(8 * MEGABYTE, threads=threads, repeats=2, huge=huge) < 1e13


@pytest.mark.parametrize("size, threads, repeats", [(MEGABYTE - 1, 1, 1), (MEGABYTE, 0, 1), (MEGABYTE, 1, 0)])
def test_senseless_measurements_are_refused(size: int, threads: int, repeats: int) -> None:
    with pytest.raises(NativeError, match="cannot be measured"):
        read_bandwidth(size, threads=threads, repeats=repeats)
