"""Balancing: the block computes the same, columns of down end equally long, V and O share their directions
alike however they were scaled before, and no channel of K drowns the others."""

from pathlib import Path

import pytest
import torch
from tests.model.checkpoints import MODELS, random_model, save
from tests.model.family_oracle import random_twin

from rockledge.formats.key_bias import split_bias
from rockledge.model.block import decoder
from rockledge.model.checkpoint import open_checkpoint
from rockledge.quantization.float_model.forward import block_forward, block_weights
from rockledge.quantization.transforming.balance import balanced, column_factors, head_mix


def spread(count: int, seed: int) -> torch.Tensor:
    return torch.exp(torch.randn(count, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("name", MODELS)
def test_a_balanced_block_computes_what_it_did(name: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(save(random_model(name), tmp_path))
    config = checkpoint.config
    weights = block_weights(checkpoint, 0)
    weights["ffn.up"] = weights["ffn.up"] * spread(config.ffn, 1)[:, None]
    weights["attn.v"] = weights["attn.v"] * spread(config.kv_heads * config.head_dim, 2)[:, None]
    weights["attn.k"] = weights["attn.k"] * spread(config.kv_heads * config.head_dim, 4)[:, None]
    if config.qk_norm:
        weights["attn.k_norm"] = spread(config.head_dim, 5)
    x = torch.randn(2, 9, config.hidden, generator=torch.Generator().manual_seed(3))
    tree = decoder(config)
    found = block_forward(balanced(weights, tree.layers[0]), x, tree, 0)
    expected = block_forward(weights, x, tree, 0)
    assert float((found - expected).abs().max()) < 1e-4 * float((expected - x).abs().max())


@pytest.mark.parametrize("name", MODELS)
def test_a_loud_channel_of_k_is_shared_with_q(name: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(save(random_model(name), tmp_path))
    config = checkpoint.config
    weights = block_weights(checkpoint, 0)
    loud = "attn.k_norm" if config.qk_norm else "attn.k.bias" if config.qkv_bias else "attn.k"
    weights[loud][3] = 100.0

    def peak(some: dict[str, torch.Tensor]) -> float:
        if config.qk_norm:
            lengths = some["attn.k_norm"].abs()
        else:
            bias = some.get("attn.k.bias", torch.zeros(1))
            if some is not weights and config.qkv_bias:  # what does not go past the cache
                bias = torch.from_numpy(split_bias(bias.numpy(), config.head_dim)[0])
            lengths = (some["attn.k"].square().sum(dim=1) + bias.square()).sqrt()[: config.head_dim]
        return float(lengths.max() / lengths.median())

    # A factor between the two sides is at best its root on both; a pair's other channel is scaled with it.
    assert peak(balanced(weights, decoder(config).layers[0])) < 3 * peak(weights) ** 0.5


def test_queries_and_keys_end_equally_long(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(save(random_model("llama2"), tmp_path))
    config = checkpoint.config
    weights = block_weights(checkpoint, 0)
    weights["attn.k"] = weights["attn.k"] * spread(config.kv_heads * config.head_dim, 2)[:, None]
    found = balanced(weights, decoder(config).layers[0])
    half = config.head_dim // 2
    query, key = (
        found[role].square().sum(dim=1).view(config.kv_heads, -1, 2, half).sum(dim=2).mean(dim=1)
        for role in ("attn.q", "attn.k")
    )
    torch.testing.assert_close(query, key)


def test_columns_of_down_become_equally_long(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(save(random_model("llama2"), tmp_path))
    weights = block_weights(checkpoint, 0)
    weights["ffn.down"] = weights["ffn.down"] * spread(checkpoint.config.ffn, 1)
    lengths = balanced(weights, decoder(checkpoint.config).layers[0])["ffn.down"].norm(dim=0)
    torch.testing.assert_close(lengths, lengths.mean().expand_as(lengths))


def test_a_dead_column_stays_dead_and_finite() -> None:
    matrix = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    matrix[:, 2] = 0
    factors = column_factors(matrix)
    assert bool(torch.isfinite(factors).all())
    assert float(factors.log().sum().abs()) < 1e-4
    assert bool(torch.isfinite(column_factors(torch.zeros(6, 8))).all())


def test_scaling_between_v_and_o_is_undone(tmp_path: Path) -> None:
    # The same function under other channel scales gets the same balanced matrices back.
    checkpoint = open_checkpoint(save(random_model("llama2"), tmp_path))
    config = checkpoint.config
    weights = block_weights(checkpoint, 0)
    scales = spread(config.kv_heads * config.head_dim, 2)
    of_queries = (
        scales.view(config.kv_heads, 1, -1).expand(-1, config.heads // config.kv_heads, -1).reshape(-1)
    )
    moved = {
        **weights,
        "attn.v": weights["attn.v"] * scales[:, None],
        "attn.o": weights["attn.o"] / of_queries,
    }

    def lengths(some: dict[str, torch.Tensor]) -> torch.Tensor:
        values = balanced(some, decoder(config).layers[0])["attn.v"].view(
            config.kv_heads, config.head_dim, -1
        )
        return torch.linalg.svdvals(values)

    torch.testing.assert_close(lengths(moved), lengths(weights), rtol=1e-3, atol=1e-6)


def test_the_mix_makes_both_sides_alike() -> None:
    generator = torch.Generator().manual_seed(4)
    a, b = (torch.randn(12, 40, generator=generator, dtype=torch.float64) for _ in range(2))
    c, g = a @ a.T, b @ b.T
    mix = head_mix(c, g)
    back = torch.linalg.inv(mix)
    torch.testing.assert_close(mix @ c @ mix, back @ g @ back)
    zero = head_mix(c, torch.zeros_like(c))
    assert bool(torch.isfinite(zero).all())
    assert bool(torch.isfinite(torch.linalg.inv(zero)).all())


@pytest.mark.parametrize("shared", [1, 2])
def test_norms_over_whole_projections_are_balanced_for_any_number_of_key_heads(
    shared: int, tmp_path: Path
) -> None:
    # With one key/value head the gain of K is as long as a head, that of Q is not.
    checkpoint = open_checkpoint(save(random_twin("Olmo2", num_key_value_heads=shared), tmp_path))
    tree, weights = decoder(checkpoint.config), block_weights(checkpoint, 0)
    x = torch.randn(2, 9, checkpoint.config.hidden, generator=torch.Generator().manual_seed(3))
    found = block_forward(balanced(weights, tree.layers[0]), x, tree, 0)
    torch.testing.assert_close(found, block_forward(weights, x, tree, 0), rtol=1e-4, atol=1e-4)
