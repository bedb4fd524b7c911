"""Strategies that damage files, and the rule that a damaged file may only be read or refused, within bounded
memory."""

import tracemalloc
from collections.abc import Callable

from hypothesis import strategies as st

from rockledge.errors import RockledgeError

# Far above what reading the tiny files of these tests takes, far below what a believed length field would.
_MEMORY = 48 << 20


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """`whole` with some bytes overwritten (numbers favoured), inserted, removed, or the end cut off."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        how = draw(st.sampled_from(["set", "number", "insert", "remove", "cut"]))
        if how == "set":
            data[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif how == "number":
            value = draw(
                st.sampled_from([0, 1, 0xFF, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1])
            )
            data[at : at + 8] = value.to_bytes(8, "little")[: len(data) - at]
        elif how == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=9))
        elif how == "remove":
            del data[at : at + draw(st.integers(1, 40))]
        else:
            del data[at:]
    return bytes(data)


def read_or_refuse(read: Callable[[], object]) -> None:
    """Runs `read`; only the errors meant for users may come out, and memory stays bounded."""
    tracemalloc.start()
    try:
        read()
    except RockledgeError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < _MEMORY
