"""Two steps over one program and cache: what one writes the other continues, to the floats of one alone."""

import threading

import numpy as np
import pytest
from tests.native.one_op import NO_CACHE, step_of
from tests.native.test_attention import SIZES, attend, attention_program, random_rows

from rockledge.errors import NativeError
from rockledge.runtime import native
from rockledge.runtime.native_step import Step

SIZE = SIZES[1]


def run(step: Step, rows: np.ndarray, first: int, pages: range = range(8)) -> np.ndarray:
    """Rows of one sequence from position `first` on, over these pages."""
    step.buffer(0)[: len(rows)] = rows
    table = np.array(pages, np.int32)[None]
    positions = np.arange(first, first + len(rows), dtype=np.int32)
    step.run(step_of(len(rows), positions=positions, block_tables=table))
    found: np.ndarray = step.buffer(3)[: len(rows)].copy()
    return found


def test_the_other_step_continues() -> None:
    rows = random_rows(SIZE, 60)
    (expected,) = attend(SIZE, [rows], [60], kernel="portable", threads=1)
    prefill = attention_program(SIZE, 50, 8, kernel="auto", threads=2)
    decode = Step(prefill.program, max_rows=10, threads=1)
    assert decode.arena_bytes < prefill.arena_bytes
    found = [run(prefill, rows[:50], 0)]
    prefill.close()
    prefill.program.close()  # the pages stay for as long as a step is there
    found.append(run(decode, rows[50:], 50))
    decode.close()
    assert np.array_equal(np.concatenate(found), expected)


def test_pages_are_copied_for_both() -> None:
    rows = random_rows(SIZE, 20)
    one = attention_program(SIZE, 20, 8, kernel="auto", threads=1)
    two = Step(one.program)
    expected = run(one, rows, 0)
    for page in (0, 1):
        one.program.copy_page(0, page, page + 4)
    two.buffer(0)[0] = rows[-1]
    copied = np.array([[4, 5]], np.int32)
    two.run(step_of(1, positions=np.array([19], np.int32), block_tables=copied))
    assert np.array_equal(two.buffer(3)[0], expected[-1])
    one.close()
    two.close()


def test_both_run_at_once() -> None:
    rows = [random_rows(SIZE, 40), random_rows(SIZE, 41)[1:]]
    expected = [attend(SIZE, [each], [40], kernel="portable", threads=1)[0] for each in rows]
    one = attention_program(SIZE, 40, 16, kernel="auto", threads=2)
    steps = [one, Step(one.program, threads=2)]
    wrong: list[int] = []

    def many(number: int) -> None:
        for _ in range(100):
            found = run(steps[number], rows[number], 0, range(8 * number, 8 * number + 8))
            if not np.array_equal(found, expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=many, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    for step in steps:
        step.close()


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"max_rows": 5}, "a step of up to 5 rows, expected 1 to 4"),
        ({"max_rows": 0}, "a step of up to 0 rows"),
        ({"max_rows": 2, "logit_rows": 3}, "draws from 3 rows, expected 0 to 2"),
        ({"logit_rows": -1}, "draws from -1 rows"),
        ({"threads": 0}, "a step cannot have 0 threads"),
        ({"threads": 65}, "a step cannot have 65 threads"),
    ],
)
def test_steps_that_do_not_fit_the_program_are_refused(sizes: dict[str, int], said: str) -> None:
    program = native.Program([], [], [], native.Shape(4, **NO_CACHE, logit_rows=4))
    with pytest.raises(NativeError, match=said):
        Step(program, **sizes)
    program.close()
    with pytest.raises(NativeError, match="closed"):
        Step(program)
