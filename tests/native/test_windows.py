"""Attention over a window: against float64, with only the pages that it reaches, whatever the schedule."""

from dataclasses import replace

import numpy as np
import pytest
from tests.native.one_op import step_of, supported_kernels
from tests.native.test_attention import SIZES, Sizes, attend, attention_program, codes_of, excess, random_rows

from rockledge.errors import NativeError
from rockledge.formats import attention_spec
from rockledge.runtime import native

KERNELS = supported_kernels()
STALE = 1 << 30  # an entry of a table that may not be used
BIASED = Sizes(6, 2, 64, 32, biased=8)
CAPPED = Sizes(4, 1, 24, 16, growth=0.4, still=8, biased=4, factor=0.8, softcap=2.0)


def attend_window(
    sizes: Sizes, qkv: np.ndarray, window: int, chunks: list[int], *, kernel: str, threads: int
) -> np.ndarray:
    """`qkv` in chunks of the given sizes (repeated), over as few pages as the window and a chunk need, each
    used again and again, filled with extreme keys, values and scales before."""
    tokens = sizes.page_tokens
    pages = (window + max(chunks)) // tokens + 2
    context = -(-len(qkv) // tokens) * tokens
    program = attention_program(
        sizes,
        max(chunks),
        1,
        kernel=kernel,
        threads=threads,
        windowed=native.Pool(1, pages, window),
        context=context,
    )
    loud = np.full((min(tokens, max(chunks)), sizes.width), 1e30, np.float32)
    for page in range(pages):
        program.buffer(0)[: len(loud)] = loud
        program.run(step_of(len(loud), block_tables=np.array([[[0]], [[page]]], np.int32)))
    found = np.zeros((len(qkv), sizes.heads * sizes.head_dim), np.float32)
    start, turn = 0, 0
    while start < len(qkv):
        rows = qkv[start : start + chunks[turn % len(chunks)]]
        end = start + len(rows)
        tables = np.zeros((2, 1, context // tokens), np.int32)
        tables[1] = STALE
        first = max(0, start + 1 - window) // tokens
        tables[1, 0, first : (end - 1) // tokens + 1] = np.arange(first, (end - 1) // tokens + 1) % pages
        program.buffer(0)[: len(rows)] = rows
        program.run(step_of(len(rows), positions=np.arange(start, end, dtype=np.int32), block_tables=tables))
        found[start:end] = program.buffer(3)[: len(rows)]
        start, turn = end, turn + 1
    program.close()
    return found


@pytest.mark.parametrize("window", [1, 7, 8, 21, 48])
@pytest.mark.parametrize("sizes", [SIZES[1], SIZES[7], SIZES[8], SIZES[12], CAPPED], ids=str)
def test_a_window_agrees_with_float64(sizes: Sizes, window: int) -> None:
    qkv = random_rows(sizes, 110)
    found = attend_window(sizes, qkv, window, [17], kernel=KERNELS[-1], threads=2)
    error = excess(found, qkv, sizes, window)
    assert np.quantile(error, 0.99) < 2e-5
    assert error.max() < 0.05


@pytest.mark.parametrize(("sizes", "window", "rows"), [(SIZES[1], 300, 700), (BIASED, 530, 1100)], ids=str)
def test_windows_over_the_borders_of_splits_agree_with_float64(sizes: Sizes, window: int, rows: int) -> None:
    qkv = random_rows(sizes, rows)
    found = attend_window(sizes, qkv, window, [128], kernel=KERNELS[-1], threads=2)
    assert np.quantile(excess(found, qkv, sizes, window), 0.95) < 2e-5


@pytest.mark.parametrize("window", [5, 21, 530])
def test_the_bits_of_a_window_are_those_of_the_specification(window: int) -> None:
    sizes = Sizes(1, 1, 40, 16, still=40)
    qkv = random_rows(sizes, 1100)
    found = attend_window(sizes, qkv, window, [100], kernel=KERNELS[-1], threads=2)
    codes, scales = codes_of(qkv.reshape(len(qkv), 3, 40))
    for position in (0, 8, 20, 511, 515, 529, 530, 1030, 1099):
        keys, values = ((codes[: position + 1, i], scales[: position + 1, i, 0]) for i in (1, 2))
        expected = attention_spec.attend(
            codes[position, 0], scales[position, 0, 0], *keys, *values,
            scale=sizes.scale, first=max(0, position + 1 - window),
        )  # fmt: skip
        assert np.array_equal(found[position], expected)


@pytest.mark.parametrize("sizes", [SIZES[2], BIASED, SIZES[8], CAPPED], ids=str)
@pytest.mark.parametrize("window", [5, 64, 520])
def test_results_do_not_depend_on_kernel_chunks_or_threads(sizes: Sizes, window: int) -> None:
    qkv = random_rows(sizes, 700)
    expected = attend_window(sizes, qkv, window, [700], kernel="portable", threads=1)
    for kernel in KERNELS:
        for chunks, threads in [([9, 64, 1], 2), ([200], 4)]:
            found = attend_window(sizes, qkv, window, chunks, kernel=kernel, threads=threads)
            assert np.array_equal(found, expected)


def test_what_a_window_does_not_reach_changes_nothing() -> None:
    sizes = SIZES[2]
    qkv = random_rows(sizes, 200)
    other = np.concatenate([random_rows(sizes, 100, seed=5), qkv[100:]])
    one, two = (attend_window(sizes, rows, 40, [25], kernel="auto", threads=1) for rows in (qkv, other))
    assert np.array_equal(one[139:], two[139:])
    assert not np.array_equal(one[138], two[138])


@pytest.mark.parametrize("sizes", [SIZES[1], BIASED], ids=str)
def test_a_window_longer_than_the_sequence_is_full_attention(sizes: Sizes) -> None:
    qkv = random_rows(sizes, 600)
    (expected,) = attend(sizes, [qkv], [600], kernel="auto", threads=1)
    found = attend_window(sizes, qkv, 600, [600], kernel="auto", threads=2)
    assert np.array_equal(found, expected)


def test_only_entries_in_reach_are_checked() -> None:
    sizes = replace(SIZES[1], page_tokens=8)
    program = attention_program(
        sizes, 4, 1, kernel="auto", threads=1, windowed=native.Pool(2, 3, window=9), context=64
    )
    positions = np.array([31, 32], np.int32)

    def run(*pages: int) -> None:
        program.run(step_of(2, positions=positions, block_tables=np.array([[[0] * 5], [pages]], np.int32)))

    run(STALE, STALE, 0, 1, 2)  # position 31 sees 23 .. 31: pages 2 and 3
    with pytest.raises(NativeError, match="page 2 of sequence 0 is 3; the pool has pages 0 to 2"):
        run(STALE, STALE, 3, 1, 2)
    with pytest.raises(NativeError, match="block_tables is int32"):
        program.run(step_of(2, positions=positions, block_tables=np.zeros((1, 5), np.int32)))
    with pytest.raises(NativeError, match="position 64; the program has a context of 64 tokens"):
        program.run(step_of(1, positions=positions[:1] + 33, block_tables=np.zeros((2, 1, 9), np.int32)))
    program.close()


def test_pages_of_a_pool_are_copied_for_that_pool_alone() -> None:
    sizes = SIZES[2]
    qkv = random_rows(sizes, sizes.page_tokens + 1)
    rows = len(qkv)
    program = attention_program(
        sizes,
        rows,
        3,
        kernel="auto",
        threads=1,
        windowed=native.Pool(2, 3, 20),
        context=3 * sizes.page_tokens,
    )
    program.buffer(0)[:] = qkv
    program.run(step_of(rows, block_tables=np.array([[[0, 1]], [[0, 1]]], np.int32)))
    expected = program.buffer(3)[rows - 1].copy()

    def last(table: list[int]) -> np.ndarray:
        program.buffer(0)[0] = qkv[-1]
        position = np.array([rows - 1], np.int32)
        program.run(step_of(1, positions=position, block_tables=np.array([[[0, 1]], [table]], np.int32)))
        return program.buffer(3)[0].copy()

    program.program.copy_page(0, 0, 2)
    assert not np.array_equal(last([2, 1]), expected)
    program.program.copy_page(1, 0, 2)
    assert np.array_equal(last([2, 1]), expected)
    program.close()


@pytest.mark.parametrize("sizes", [SIZES[2], SIZES[4], CAPPED], ids=str)
@pytest.mark.parametrize("window", [1, 3, 61, 509])
def test_rows_whose_windows_begin_apart_answer_as_they_do_alone(sizes: Sizes, window: int) -> None:
    qkv = random_rows(sizes, 560)
    expected = attend_window(sizes, qkv, window, [1], kernel=KERNELS[-1], threads=1)
    for kernel in KERNELS:
        for chunks, threads in [([29, 3], 1), ([101], 2), ([560], 4)]:
            found = attend_window(sizes, qkv, window, chunks, kernel=kernel, threads=threads)
            assert np.array_equal(found, expected)
