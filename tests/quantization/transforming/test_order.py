"""Channel order: always a permutation, sorted bands, loud bands spread over the Hadamard blocks, and the
block still computes the same."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rockledge.model.checkpoint import open_checkpoint
from rockledge.quantization.float_model.forward import block_forward
from rockledge.quantization.transforming import order as order_module
from rockledge.quantization.transforming.hadamard import hadamard
from rockledge.quantization.transforming.order import (
    arranged,
    arranged_moments,
    channel_order,
    store_order,
    stored_order,
)
from rockledge.quantization.transforming.rotate import rotated
from rockledge.synth import synth_checkpoint


def bands(total: int, rows: int) -> list[tuple[int, int]]:
    return [(start, min(rows, total - start)) for start in range(0, total, rows)]


@given(st.sampled_from([(1536, 128, 512), (208, 128, 16), (1024, 128, 512), (700, 200, 4), (512, 512, 512)]))
def test_it_is_a_permutation(shape: tuple[int, int, int]) -> None:
    total, rows, block = shape
    order = channel_order(torch.rand(total), bands(total, rows), block)
    assert torch.equal(order.sort().values, torch.arange(total))


def test_bands_hold_neighbours_in_cost_and_blocks_share_the_dear_ones() -> None:
    costs = torch.rand(1536, generator=torch.Generator().manual_seed(2))
    ordered = costs[channel_order(costs, bands(1536, 128), 512)].view(12, 128)
    ranked = costs.sort(descending=True).values.view(12, 128)
    dealt = [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]
    assert torch.equal(ordered, ranked[dealt])


def test_without_whole_bands_in_a_block_it_is_plainly_sorted() -> None:
    costs = torch.tensor([1.0, 3.0, 2.0, 3.0])
    assert channel_order(costs, [(0, 4)], 2).tolist() == [1, 3, 2, 0]


def test_an_arranged_block_computes_what_it_did(tmp_path: Path) -> None:
    model = rotated(open_checkpoint(synth_checkpoint("toy", tmp_path)))
    config, tree = model.config, model.tree
    block = model.online[tree.layers[0].ordered.place]
    weights = model.block_weights(0, online=False)
    x = torch.randn(2, 9, config.hidden, generator=torch.Generator().manual_seed(3))
    order = torch.randperm(config.ffn, generator=torch.Generator().manual_seed(4))
    found = block_forward(arranged(weights, tree.layers[0].gated, order, block), x, tree, 0, model.taps())
    torch.testing.assert_close(found, block_forward(weights, x, tree, 0), rtol=1e-5, atol=1e-6)


def test_a_stored_order_comes_back(tmp_path: Path) -> None:
    order = torch.randperm(50)
    store_order(tmp_path, 3, order)
    assert torch.equal(stored_order(tmp_path, 3), order)


def test_moments_follow_the_channels_through_the_transform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_module, "_PIECE", 10)
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(400, 24, generator=generator) * torch.rand(24, generator=generator)
    order = torch.randperm(24, generator=generator)
    for block in (8, 0):
        seen = hadamard(x[:, order], block)
        torch.testing.assert_close(
            arranged_moments(x.T @ x, order, block), seen.T @ seen, rtol=1e-4, atol=1e-3
        )
    assert torch.equal(arranged_moments(torch.arange(24.0), order, 0), order.float())


def test_of_a_diagonal_comes_the_diagonal_of_channels_that_do_not_correlate() -> None:
    diagonal, order = torch.arange(1.0, 9.0), torch.tensor([7, 1, 0, 3, 2, 6, 5, 4])
    whole = arranged_moments(torch.diag(diagonal), order, 4)
    torch.testing.assert_close(arranged_moments(diagonal, order, 4), whole.diagonal())
