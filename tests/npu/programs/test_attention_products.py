"""Attention's two products on the emulator, and attention over them against its specification."""

import numpy as np
import pytest

from rockledge.formats import attention_spec
from rockledge.formats.npu_attention_spec import Int8, Int32, attend
from rockledge.npu.programs.attention_products import TiledProduct, attention_products
from rockledge_npu_lab.linting.check import lint
from rockledge_npu_lab.verify.emulated import run_launch

ADDRESSES = {"input": 0x1000000, "weight": 0x2000000, "output": 0x3000000, "program": 0x100000}


@pytest.mark.parametrize("chained", [True, False])
@pytest.mark.parametrize(("queries", "inputs"), [(4, 32), (22, 64), (171 * 3, 64), (684, 128), (30, 256)])
def test_products_are_exact(queries: int, inputs: int, chained: bool) -> None:
    products = attention_products(queries, inputs, chained=chained)
    random = np.random.default_rng(queries)
    for product, columns, k, rows in (
        (products.scores, 512, inputs, queries),
        (products.sums, inputs, 512, 2 * queries),
    ):
        assert rows <= product.vectors < rows + 4 * (rows // product.tile + 1)
        assert product.vectors % product.tile == 0
        assert product.tile % 4 == 0
        a = random.integers(-128, 128, (product.vectors, k)).astype(np.int8)
        b = random.integers(-128, 128, (columns, k)).astype(np.int8)
        found = product.matmul.multiply(a, b, run_launch)
        assert (found == a.astype(np.int32) @ b.astype(np.int32).T).all()


def test_programs_have_nothing_suspicious() -> None:
    products = attention_products(684, 128)
    for product in (products.scores, products.sums):
        assert lint(product.program.at(ADDRESSES).tolist()) == []


def test_attention_over_the_emulator_is_that_of_the_specification() -> None:
    """A prompt that begins in one split and ends in another, heads of 50 inputs in rows of 64."""
    random = np.random.default_rng(3)
    past, size = 530, 50
    positions = np.arange(500, past)
    queries = random.integers(-127, 128, (30, size)).astype(np.int8)
    keys, values = random.integers(-127, 128, (2, past, size)).astype(np.int8)
    key_scales, value_scales = random.lognormal(0, 0.5, (2, past)).astype(np.float32)
    query_scales = random.lognormal(0, 0.5, 30).astype(np.float32)
    products = attention_products(len(queries), 64)

    def multiply(product: TiledProduct, a: Int8, b: Int8) -> Int32:
        tiling = product.matmul.tiling
        padded = np.zeros((product.vectors, tiling.k), np.int8)
        padded[: len(a), : a.shape[1]] = a
        weights = np.zeros((tiling.n, tiling.k), np.int8)
        weights[: len(b), : b.shape[1]] = b
        return product.matmul.multiply(padded, weights, run_launch)[: len(a), : len(b)]

    found = attend(
        queries, query_scales, positions, keys, key_scales, values, value_scales, scale=1e-5,
        product=lambda a, b: multiply(products.scores if len(b) == 512 else products.sums, a, b),
    )  # fmt: skip
    for q, position in enumerate(positions):
        seen = slice(0, position + 1)
        expected = attention_spec.attend(
            queries[q], query_scales[q], keys[seen], key_scales[seen], values[seen], value_scales[seen],
            scale=1e-5,
        )  # fmt: skip
        assert found[q].tobytes() == expected.tobytes()
