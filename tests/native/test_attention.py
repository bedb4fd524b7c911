"""Rotary turn, int8 KV cache and attention: against float64, and whatever the pages, chunks and threads."""

from dataclasses import dataclass

import numpy as np
import pytest
from tests.native.one_op import float_buffer, int8_buffer, open_step, supported_kernels

from rockledge.formats import attention_spec
from rockledge.formats.activations import quantize_activations
from rockledge.formats.attention_spec import MOST_CODE
from rockledge.runtime import native
from rockledge.runtime.native import OpCode
from rockledge.runtime.native_step import Batch, Step

KERNELS = supported_kernels()


@dataclass(frozen=True)
class Sizes:
    heads: int
    kv_heads: int
    head_dim: int
    page_tokens: int
    norm: bool = False
    biased: int = 0  # pairs of a key/value head that have a score bias
    still: int = 0  # channels of a head that do not turn
    whole: bool = False  # norms span all heads
    factor: float = 1.0
    growth: float = 0.0
    softcap: float = 0.0

    @property
    def width(self) -> int:
        return (self.heads + 2 * self.kv_heads) * self.head_dim

    @property
    def scale(self) -> float:
        # Capped scores and grown queries are there to be told from others: they have to be large.
        return float(self.head_dim**-0.5) * (2.0 if self.softcap else 1.0)

    @property
    def turned(self) -> int:
        return self.head_dim - self.still


SIZES = [
    Sizes(1, 1, 8, 8),
    Sizes(6, 2, 32, 16),
    Sizes(9, 3, 64, 32, norm=True),
    Sizes(5, 1, 40, 512),
    Sizes(8, 8, 16, 64),
    Sizes(7, 1, 128, 128),
    Sizes(6, 2, 64, 32, biased=8),
    Sizes(5, 1, 24, 16, biased=12),
    Sizes(3, 3, 2, 8),
    Sizes(4, 2, 6, 16, norm=True),
    Sizes(4, 1, 34, 16, norm=True),
    Sizes(6, 3, 50, 32, biased=8),
    Sizes(3, 1, 100, 32, norm=True),
    Sizes(8, 4, 100, 64, biased=8),
    Sizes(2, 1, 510, 32),
    Sizes(6, 2, 32, 16, still=16),
    Sizes(6, 2, 96, 16, still=24, norm=True),
    Sizes(4, 2, 24, 16, still=14, biased=3),
    Sizes(6, 3, 50, 32, still=50),
    Sizes(4, 2, 40, 16, still=40, norm=True, whole=True),
    Sizes(6, 2, 36, 16, norm=True, whole=True),
    Sizes(4, 2, 32, 16, factor=1.25, biased=4),
    Sizes(4, 2, 32, 16, growth=0.7),
    Sizes(4, 1, 24, 16, growth=0.4, still=8, biased=4, factor=0.8, softcap=2.0),
    Sizes(5, 1, 40, 32, softcap=1.5),
]
LAYERS = 2
GROWTH_LENGTH = 20


def frequencies(sizes: Sizes) -> np.ndarray:
    return (10000.0 ** (-np.arange(0, sizes.turned, 2) / max(sizes.turned, 1))).astype(np.float32)


def gains(sizes: Sizes) -> tuple[np.ndarray | None, np.ndarray | None]:
    if not sizes.norm:
        return None, None
    rng = np.random.default_rng(7)
    spans = (sizes.heads, sizes.kv_heads) if sizes.whole else (1, 1)
    q, k = (rng.normal(1, 0.2, span * sizes.head_dim).astype(np.float32) for span in spans)
    return q, k


def score_bias(sizes: Sizes) -> np.ndarray | None:
    """Loud in some pairs of every key/value head, [kv_heads, head_dim]; None without."""
    if not sizes.biased:
        return None
    rng = np.random.default_rng(9)
    half = sizes.turned // 2
    bias = np.zeros((sizes.kv_heads, sizes.head_dim), np.float32)
    for head in bias:
        pairs = rng.permutation(half)[: sizes.biased]
        head[pairs], head[half + pairs] = rng.normal(0, 4, (2, sizes.biased))
    bias[0, half + np.flatnonzero(bias[0, :half])[0]] = 0  # a pair may have one zero
    return bias


def attention_program(
    sizes: Sizes,
    rows: int,
    pages: int,
    *,
    kernel: str,
    threads: int,
    layers: int = LAYERS,
    windowed: native.Pool | None = None,
    context: int = 0,
) -> Step:
    """Attention over a pool without a window; or over `windowed`, the second one, below `context`."""
    pools = (native.Pool(layers, pages), *([] if windowed is None else [windowed]))
    layer, pool = pools[-1].layers - 1, len(pools) - 1
    inner = sizes.heads * sizes.head_dim
    buffers = [
        float_buffer(sizes.width, 0),
        int8_buffer(sizes.heads * -(-sizes.head_dim // 32) * 32, 1),
        float_buffer(sizes.heads, 2),
        float_buffer(inner, 3),
        float_buffer(inner, 4),
    ]
    bias, turns = score_bias(sizes), frequencies(sizes) if sizes.turned else None
    queries = (1, 2) if bias is None else (1, 2, 4)
    ops = [
        native.Op(
            OpCode.ROPE_KV,
            (0,),
            queries,
            dim=(layer, pool, sizes.turned, int(sizes.whole)),
            real=(1e-5, sizes.factor, sizes.scale, sizes.growth, GROWTH_LENGTH),
            weight=(turns, *gains(sizes), bias),
        ),
        native.Op(
            OpCode.ATTENTION,
            queries,
            (3,),
            dim=(layer, pool),
            real=(sizes.scale, sizes.softcap),
            weight=(turns, None, None, bias),
        ),
    ]
    shape = native.Shape(
        rows, sizes.heads, sizes.kv_heads, sizes.head_dim, sizes.page_tokens,
        context or pages * sizes.page_tokens, pools,
    )  # fmt: skip
    return open_step(ops, [], buffers, shape, threads=threads, kernel=kernel)


def attend(
    sizes: Sizes,
    sequences: list[np.ndarray],
    chunks: list[int],
    *,
    kernel: str,
    threads: int,
    seed: int = 0,
) -> list[np.ndarray]:
    """Feeds sequences of qkv rows in chunks of the given sizes (repeated), all sequences in every step."""
    count = len(sequences)
    per_sequence = max(-(-len(s) // sizes.page_tokens) for s in sequences)
    order = np.random.default_rng(seed).permutation(count * per_sequence).astype(np.int32)
    tables = np.ascontiguousarray(order.reshape(count, per_sequence))
    program = attention_program(
        sizes, max(chunks) * count, count * per_sequence, kernel=kernel, threads=threads
    )
    results = [np.zeros((len(s), sizes.heads * sizes.head_dim), np.float32) for s in sequences]
    start, turn = 0, 0
    while start < max(map(len, sequences)):
        size = chunks[turn % len(chunks)]
        rows = [(s, p) for s in range(count) for p in range(start, min(start + size, len(sequences[s])))]
        numbers, positions = (np.array(column, np.int32) for column in zip(*rows, strict=True))
        program.buffer(0)[: len(rows)] = [sequences[s][p] for s, p in rows]
        program.run(Batch(np.zeros(len(rows), np.int32), positions, numbers, tables))
        for row, (s, p) in enumerate(rows):
            results[s][p] = program.buffer(3)[row]
        start, turn = start + size, turn + 1
    program.close()
    return results


def rotated(
    x: np.ndarray, sizes: Sizes, gain: np.ndarray | None, angles: type[np.floating] = np.float32
) -> np.ndarray:
    """x [T, heads, head_dim] after its norm and the turn of its first channels, float64."""
    x = x.astype(np.float64)
    if gain is not None:
        over = (-2, -1) if sizes.whole else -1
        x = x / np.sqrt((x**2).mean(axis=over, keepdims=True) + 1e-5) * gain.reshape(-1, x.shape[-1])
    angle = (np.arange(len(x), dtype=angles)[:, None] * frequencies(sizes)).astype(np.float64)
    c, s = sizes.factor * np.cos(angle)[:, None], sizes.factor * np.sin(angle)[:, None]
    a, b, still = np.split(x, [sizes.turned // 2, sizes.turned], axis=-1)
    return np.concatenate([a * c - b * s, b * c + a * s, still], axis=-1)


def codes_of(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x [T, heads, head_dim] as the cache holds it: int8, with a scale [T, heads, 1] per token and head."""
    q, scale = quantize_activations(x.reshape(-1, x.shape[-1]).astype(np.float32), 1)
    return q[:, 0].reshape(x.shape), scale.reshape(*x.shape[:2], 1)


def rounded(x: np.ndarray) -> np.ndarray:
    """x [T, heads, head_dim] as what the cache holds stands for."""
    q, scale = codes_of(x)
    return q * scale.astype(np.float64)


def values_of(qkv: np.ndarray, sizes: Sizes) -> np.ndarray:
    """The values [T, kv_heads, head_dim] in rows of qkv."""
    return qkv[:, (sizes.heads + sizes.kv_heads) * sizes.head_dim :].reshape(len(qkv), sizes.kv_heads, -1)


def softmax_weights(qkv: np.ndarray, sizes: Sizes, window: int = 0) -> np.ndarray:
    """float64 [heads, queries, keys]."""
    hd, h, kv = sizes.head_dim, sizes.heads, sizes.kv_heads
    q, k, _ = np.split(qkv, [h * hd, (h + kv) * hd], axis=1)
    gain_q, gain_k = gains(sizes)
    growth = 1 + sizes.growth * np.log(1 + np.arange(len(qkv)) // GROWTH_LENGTH)
    turned = rotated(q.reshape(-1, h, hd), sizes, gain_q) * growth[:, None, None]
    q = rounded(turned)
    k = rounded(rotated(k.reshape(-1, kv, hd), sizes, gain_k))
    scores = np.einsum("qhd,khd->hqk", q, np.repeat(k, h // kv, axis=1))
    if (bias := score_bias(sizes)) is not None:
        late = rotated(np.broadcast_to(bias, (len(qkv), *bias.shape)), sizes, None, np.float64)
        scores += np.einsum("qhd,khd->hqk", turned, np.repeat(late, h // kv, axis=1))
    scores *= sizes.scale
    if sizes.softcap:
        scores = sizes.softcap * np.tanh(scores / sizes.softcap)
    seen = np.tri(len(qkv), dtype=bool)
    if window:
        seen &= ~np.tri(len(qkv), k=-window, dtype=bool)
    scores = np.where(seen, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def reference(qkv: np.ndarray, sizes: Sizes, window: int = 0) -> np.ndarray:
    values = np.repeat(rounded(values_of(qkv, sizes)), sizes.heads // sizes.kv_heads, axis=1)
    weights = softmax_weights(qkv, sizes, window)
    return np.einsum("hqk,khd->qhd", weights, values).reshape(len(qkv), -1)


def excess(found: np.ndarray, qkv: np.ndarray, sizes: Sizes, window: int = 0) -> np.ndarray:
    """By how much results are further from float64 than 14-bit codes of weights explain
    (formats/attention_spec.py)."""
    codes, scales = (
        np.repeat(part, sizes.heads // sizes.kv_heads, axis=1) for part in codes_of(values_of(qkv, sizes))
    )
    weights = softmax_weights(qkv, sizes, window)
    largest = (weights * scales[:, :, 0].T[:, None]).max(axis=-1)
    seen = np.einsum("hqk,khd->hqd", (weights > 0).astype(np.float64), np.abs(codes.astype(np.float64)))
    allowed = (largest[:, :, None] * seen / (2 * MOST_CODE)).transpose(1, 0, 2).reshape(len(qkv), -1)
    return np.maximum(np.abs(found - reference(qkv, sizes, window)) - allowed, 0)


def random_rows(sizes: Sizes, rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1.5, (rows, sizes.width)).astype(np.float32)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_attention_agrees_with_float64(kernel: str, sizes: Sizes) -> None:
    qkv = random_rows(sizes, 70)
    (found,) = attend(sizes, [qkv], [70], kernel=kernel, threads=2)
    # A value on a rounding border of the cache may fall on either side: compare the typical error tightly.
    error = excess(found, qkv, sizes)
    assert np.quantile(error, 0.99) < 2e-5
    assert error.max() < 0.05


@pytest.mark.parametrize("sizes", [SIZES[1], SIZES[6], SIZES[-2]], ids=str)
def test_contexts_of_several_splits_agree_with_float64(sizes: Sizes) -> None:
    qkv = random_rows(sizes, 1300)
    (found,) = attend(sizes, [qkv], [512], kernel=KERNELS[-1], threads=2)
    # Among so many keys some lie on a rounding border, and move what all later positions read of them.
    assert np.quantile(excess(found, qkv, sizes), 0.95) < 2e-5


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("head_dim", [8, 50, 64, 128])
def test_the_bits_are_those_of_the_specification(kernel: str, head_dim: int) -> None:
    """Nothing turns, so that queries, keys and values are rounded as they stand."""
    sizes = Sizes(4, 2, head_dim, 16, still=head_dim)
    qkv = random_rows(sizes, 1300)
    (found,) = attend(sizes, [qkv], [300], kernel=kernel, threads=2)
    heads = qkv.reshape(len(qkv), -1, head_dim)
    codes, scales = codes_of(heads)
    for position in (0, 6, 7, 8, 300, 511, 512, 700, 1023, 1299):
        for head in range(sizes.heads):
            key = sizes.heads + head // 2
            seen = [part[: position + 1] for part in (codes, scales[:, :, 0])]
            expected = attention_spec.attend(
                codes[position, head], scales[position, head, 0],
                seen[0][:, key], seen[1][:, key], seen[0][:, key + 2], seen[1][:, key + 2],
                scale=sizes.scale,
            )  # fmt: skip
            assert np.array_equal(found[position].reshape(sizes.heads, -1)[head], expected)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_results_do_not_depend_on_kernel_chunks_threads_batch_or_pages(sizes: Sizes) -> None:
    sequences = [random_rows(sizes, n, seed=n) for n in (90, 61)]
    expected = attend(sizes, sequences, [90], kernel="portable", threads=1)
    for kernel in KERNELS:
        for chunks, threads, seed in [([1], 2, 1), ([7, 32], 3, 2), ([90], 4, 3)]:
            found = attend(sizes, sequences, chunks, kernel=kernel, threads=threads, seed=seed)
            for a, b in zip(expected, found, strict=True):
                assert np.array_equal(a, b)
        alone = attend(sizes, sequences[1:], [13], kernel=kernel, threads=2)
        assert np.array_equal(alone[0], expected[1])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("sizes", [SIZES[1], SIZES[6], SIZES[-2]], ids=str)
def test_splits_shared_by_threads_change_nothing(kernel: str, sizes: Sizes) -> None:
    qkv = random_rows(sizes, 1100)
    expected = attend(sizes, [qkv], [1100], kernel=kernel, threads=1)[0]
    for threads in (2, 4):
        found = attend(sizes, [qkv], [1023, 1], kernel=kernel, threads=threads)[0]
        assert np.array_equal(found, expected)


def test_a_copied_page_answers_like_the_original() -> None:
    sizes = SIZES[2]
    qkv = random_rows(sizes, sizes.page_tokens + 1)
    program = attention_program(sizes, len(qkv), 3, kernel="auto", threads=1)
    rows = len(qkv)
    program.buffer(0)[:] = qkv
    table = np.array([[0, 1]], np.int32)
    program.run(
        Batch(np.zeros(rows, np.int32), np.arange(rows, dtype=np.int32), np.zeros(rows, np.int32), table)
    )
    expected = program.buffer(3)[rows - 1].copy()
    program.program.copy_page(0, 0, 2)
    program.buffer(0)[0] = qkv[-1]
    one = np.zeros(1, np.int32)
    last = np.array([rows - 1], np.int32)
    program.run(Batch(one, last, one, np.array([[2, 1]], np.int32)))
    assert np.array_equal(program.buffer(3)[0], expected)
    program.close()


@dataclass(frozen=True)
class Part:
    """Rows of one sequence in a step."""

    sequence: int
    start: int
    rows: int


MIXED = [
    [Part(0, 0, 500), Part(2, 0, 3)],
    [Part(1, 0, 505), Part(0, 500, 1), Part(2, 3, 1)],
    # Over the border of a split; single rows between; rows from the last position of a page on.
    [Part(0, 501, 23), Part(2, 4, 1), Part(1, 505, 9), Part(2, 5, 27)],
    [Part(2, 32, 1), Part(1, 514, 1), Part(0, 524, 1)],
    [Part(1, 515, 6), Part(0, 525, 31), Part(2, 33, 40)],
]
"""Steps in which rows of three sequences stand side by side."""


def mixed(
    sizes: Sizes, sequences: list[np.ndarray], steps: list[list[Part]], *, kernel: str, threads: int
) -> list[np.ndarray]:
    """What the rows of `steps` give, by sequence; each has pages of its own in a shuffled pool."""
    each = -(-max(map(len, sequences)) // sizes.page_tokens)
    order = np.random.default_rng(3).permutation(len(sequences) * each).astype(np.int32)
    tables = np.ascontiguousarray(order.reshape(len(sequences), each))
    most = max(sum(part.rows for part in step) for step in steps)
    program = attention_program(sizes, most, order.size, kernel=kernel, threads=threads)
    found = [np.zeros((len(s), sizes.heads * sizes.head_dim), np.float32) for s in sequences]
    for step in steps:
        rows = [(p.sequence, p.start + i) for p in step for i in range(p.rows)]
        numbers, positions = (np.array(column, np.int32) for column in zip(*rows, strict=True))
        program.buffer(0)[: len(rows)] = [sequences[s][p] for s, p in rows]
        program.run(Batch(np.zeros(len(rows), np.int32), positions, numbers, tables))
        for row, (s, p) in enumerate(rows):
            found[s][p] = program.buffer(3)[row]
    program.close()
    return found


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("sizes", [SIZES[2], SIZES[4], SIZES[5], SIZES[6], SIZES[-2]], ids=str)
def test_rows_that_share_a_walk_answer_as_they_do_alone(kernel: str, sizes: Sizes) -> None:
    sequences = [random_rows(sizes, n, seed=n) for n in (556, 521, 73)]
    # Rows of a step stand so that none follows another.
    alone = [[Part(s, p, 1) for s, rows in enumerate(sequences) if p < len(rows)] for p in range(556)]
    expected = mixed(sizes, sequences, alone, kernel=KERNELS[-1], threads=1)
    for threads in (1, 2, 4):
        found = mixed(sizes, sequences, MIXED, kernel=kernel, threads=threads)
        for a, b in zip(expected, found, strict=True):
            assert np.array_equal(a, b)
