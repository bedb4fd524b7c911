"""Two programs over one cache: what one writes the other continues, to the floats of one alone."""

import numpy as np
import pytest
from tests.native.one_op import NO_CACHE, step_of
from tests.native.test_attention import SIZES, attend, attention_program, random_rows

from rockledge.errors import NativeError
from rockledge.runtime import native

SIZE = SIZES[1]


def run(program, rows, first):
    """Rows of one sequence from position `first` on, over the pages 0, 1, ..."""
    program.buffer(0)[: len(rows)] = rows
    table = np.arange(8, dtype=np.int32)[None]
    positions = np.arange(first, first + len(rows), dtype=np.int32)
    program.run(step_of(len(rows), positions=positions, block_tables=table))
    return program.buffer(3)[: len(rows)].copy()


def test_the_other_program_continues() -> None:
    rows = random_rows(SIZE, 60)
    (expected,) = attend(SIZE, [rows], [60], kernel="portable", threads=1)
    prefill = attention_program(SIZE, 50, 8, kernel="auto", threads=2)
    decode = attention_program(SIZE, 10, 8, kernel="auto", threads=1)
    alone = decode.memory
    decode.share_cache(prefill)
    assert decode.memory == native.ProgramMemory(alone.arena, 0) != alone
    found = [run(prefill, rows[:50], 0)]
    prefill.close()  # the pages stay for as long as somebody has them
    found.append(run(decode, rows[50:], 50))
    decode.close()
    assert np.array_equal(np.concatenate(found), expected)


def test_pages_are_copied_for_both() -> None:
    rows = random_rows(SIZE, 20)
    one, two = (attention_program(SIZE, 20, 8, kernel="auto", threads=1) for _ in range(2))
    two.share_cache(one)
    expected = run(one, rows, 0)
    for page in (0, 1):
        two.copy_page(0, page, page + 4)
    one.buffer(0)[0] = rows[-1]
    copied = np.array([[4, 5]], np.int32)
    one.run(step_of(1, positions=np.array([19], np.int32), block_tables=copied))
    assert np.array_equal(one.buffer(3)[0], expected[-1])
    one.close(), two.close()


@pytest.mark.parametrize(
    "other", [{"pages": 9}, {"sizes": SIZES[2]}, {"sizes": None}], ids=["pages", "heads", "no cache"]
)
def test_other_pages_are_refused(other) -> None:
    sizes = other.get("sizes", SIZE)
    one = attention_program(SIZE, 4, 8, kernel="auto", threads=1)
    if sizes is None:
        shape = native.Shape(4, **NO_CACHE)
        two = native.Program([], [], [], shape)
    else:
        two = attention_program(sizes, 4, other.get("pages", 8), kernel="auto", threads=1)
    with pytest.raises(NativeError, match="cache"):
        one.share_cache(two)
    one.close(), two.close()
