"""Balancing of the channels between two matrices, where no norm or gate fixes their size.

Any invertible M may stand between V and O of one key/value head, any factor between a channel of up and its
column of down, and any factor between a rotary pair of K and that of the queries which read it: the block
computes the same. But rounding does not cost the same.

Queries and keys are rounded when they are used, each head of a token by one scale, so a channel that is
always large makes the others coarse. Qwen2.5's K has such channels, by its bias. With k and q the lengths of
a pair, factors of (q / k)^(1/2) give both sides the lengths (q k)^(1/2), and neither outliers. The largest
biases do not count: they bypass the cache (`formats.key_bias`).

Only what turns together is tied together: in a layer without rotary turns, and beyond the channels that turn,
every channel has its own factor. Norms of q and k take the factors into their gains: one for every head, or,
where they norm whole projections, one for every channel of a key/value head and its query heads.

For the others, error feedback leaves in a row an error that grows with the row's length |w|^2 and with the
determinant of its inputs' moments. With determinants kept, what is left to choose is the length of rows:

- up and down: rows of up have a scale each and do not care; down's rows are shortest when all its columns
  are equally long.
- V and O: with C = V V^T and G = O^T O over the query heads that share the head, rows of V cost C and their
  errors G (through O), so the two trade; the symmetric M with M C M = M^-1 G M^-1, their geometric mean,
  makes both alike, so that no direction that matters little is rounded finely.

The weights alone decide it. The measured gradients at V's outputs look like a better G but are not: they are
mostly those of the first token, and true divergence doubled where the price promised a quarter.
"""

from collections.abc import Mapping

import torch

from rockledge.formats.key_bias import large_bias_channels
from rockledge.model.block import Attention, Gated, Layer

# Below this share of the largest, an eigenvalue (or a column's squared length) counts as this share: dead
# channels stay finite.
_LEAST = 1e-6
_LEAST_COLUMN = 1e-4
_LEAST_PAIR = 1e-4


def balanced(weights: Mapping[str, torch.Tensor], layer: Layer) -> dict[str, torch.Tensor]:
    """A layer's weights by role, fp32, with Q and K, V and O, up and down balanced; the others are as given.

    The columns of down must be plain, without their online Hadamard; V and O may be rotated within heads.
    """
    if layer.attends.q_norm is not None:
        changed = balanced_gains(weights, layer.attends)
    else:
        changed = {**weights, **_balanced_scores(weights, layer.attends)}
    return changed | _balanced_channels(weights, layer.gated) | _balanced_values(weights, layer.attends)


def _balanced_channels(weights: Mapping[str, torch.Tensor], gated: Gated) -> dict[str, torch.Tensor]:
    """Up and down with every channel between them balanced."""
    up, down = gated.up.role, weights[gated.down.role]
    factors = column_factors(down)
    changed = {gated.down.role: down * factors, up: weights[up] / factors[:, None]}
    if gated.up.bias:
        changed[up + ".bias"] = weights[up + ".bias"] / factors
    return changed


def _balanced_values(weights: Mapping[str, torch.Tensor], attention: Attention) -> dict[str, torch.Tensor]:
    """V and O with every key/value head balanced."""
    size, shared = attention.head_dim, attention.heads // attention.kv_heads
    v, out = attention.v.role, attention.out.role
    values = weights[v].double().view(attention.kv_heads, size, -1)
    readers = weights[out].double().view(-1, attention.kv_heads, shared, size)  # [hidden, kv, query, channel]
    mixes = torch.stack(
        [
            head_mix(values[head] @ values[head].T, torch.einsum("nqi,nqj->ij", *[readers[:, head]] * 2))
            for head in range(attention.kv_heads)
        ]
    )
    turned = torch.einsum("nhqi,hij->nhqj", readers, torch.linalg.inv(mixes))
    changed = {
        v: (mixes @ values).view(weights[v].shape).float(),
        out: turned.reshape(weights[out].shape).float(),
    }
    if (bias := weights.get(v + ".bias")) is not None:
        changed[v + ".bias"] = (
            torch.einsum("hij,hj->hi", mixes, bias.double().view(-1, size)).reshape(-1).float()
        )
    return changed


def balanced_gains(weights: Mapping[str, torch.Tensor], attention: Attention) -> dict[str, torch.Tensor]:
    """The `weights` by role, fp32, with the gains of the norms of queries and keys balanced, if there are
    any."""
    changed = dict(weights)
    if attention.q_norm is None or attention.k_norm is None:
        return changed
    query, key = (weights[norm.role] for norm in (attention.q_norm, attention.k_norm))
    whole = len(query) != attention.head_dim
    squares = query.square(), key.square()
    if whole:
        squares = _by_head(squares[0], attention), _by_head(squares[1], attention)
    factors = pair_factors(*squares, _turned(attention))
    of_query, of_key = _of_rows(factors, attention) if whole else (factors, factors)
    changed[attention.q_norm.role], changed[attention.k_norm.role] = query / of_query, key * of_key
    return changed


def pair_factors(query: torch.Tensor, key: torch.Tensor, turned: int) -> torch.Tensor:
    """What to multiply keys by, and divide queries by, fp32 [..., head_dim], from the squared lengths of
    their channels; both channels of a rotary pair, half of the `turned` channels apart, have the same
    factor."""
    pairs = [
        torch.stack(squares[..., :turned].chunk(2, -1)).sum(dim=0) if turned else squares[..., :0]
        for squares in (query, key)
    ]
    both = [
        torch.cat((pair, squares[..., turned:]), -1).clamp_min(_LEAST_PAIR * squares.mean().clamp_min(1e-30))
        for pair, squares in zip(pairs, (query, key), strict=True)
    ]
    factors = (both[0] / both[1]).pow(0.25)
    return torch.cat((factors[..., : turned // 2], factors), -1)


def _balanced_scores(weights: Mapping[str, torch.Tensor], attention: Attention) -> dict[str, torch.Tensor]:
    """Weights and biases of Q and K with the pairs of every key/value head balanced.

    A channel's squared length is that of its row, inputs being normed, and of the bias that keys keep. The
    query heads that share a key/value head count as their mean.
    """
    turned, scores = _turned(attention), (attention.q.role, attention.k.role)
    (query, of_query), (key, of_key) = (
        [_by_head(square, attention) for square in _squares(weights, role)] for role in scores
    )
    query = query + of_query
    # As large as the key's biases would be if none of them counted. Those that do count end up smaller.
    squares = of_key * pair_factors(query, key, turned).square()
    large = torch.from_numpy(large_bias_channels(squares.cpu().numpy(), turned)).to(squares.device)
    factors = pair_factors(query, key + of_key.masked_fill(large, 0), turned)
    of_query, of_key = _of_rows(factors, attention)
    changed = {}
    for role, of_row in zip(scores, (1 / of_query, of_key), strict=True):
        changed[role] = weights[role] * of_row[:, None]
        if (bias := weights.get(role + ".bias")) is not None:
            changed[role + ".bias"] = bias * of_row
    return changed


def _turned(attention: Attention) -> int:
    """Channels of a head that turn."""
    return 0 if attention.rope is None else attention.rope.turned


def _by_head(squares: torch.Tensor, attention: Attention) -> torch.Tensor:
    """[kv_heads, head_dim] of every channel of a projection; heads that share a key/value head as a mean."""
    return squares.view(attention.kv_heads, -1, attention.head_dim).mean(dim=1)


def _of_rows(factors: torch.Tensor, attention: Attention) -> tuple[torch.Tensor, torch.Tensor]:
    """The factors [kv_heads, head_dim] for every channel of Q, and of K."""
    shared = attention.heads // attention.kv_heads
    return factors.repeat_interleave(shared, 0).flatten(), factors.flatten()


def _squares(weights: Mapping[str, torch.Tensor], role: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared lengths [N] of a linear's rows, and of its biases."""
    squares = weights[role].square().sum(dim=1)
    bias = weights.get(role + ".bias")
    return squares, torch.zeros_like(squares) if bias is None else bias.square()


def column_factors(matrix: torch.Tensor) -> torch.Tensor:
    """Factors fp32 [K], with product 1, that make the columns of `matrix` fp32 [N, K] equally long."""
    squares = matrix.square().sum(dim=0)
    factors = squares.clamp_min(_LEAST_COLUMN * squares.mean().clamp_min(1e-30)).rsqrt()
    return factors / factors.log().mean().exp()


def head_mix(c: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """The symmetric positive M with M C M = M^-1 G M^-1 for symmetric positive `c` and `g` fp64 [d, d]."""
    root = _power(c, 0.5)
    back = _power(c, -0.5)
    return _power(back @ _power(root @ g @ root, 0.5) @ back, 0.5)


def _power(matrix: torch.Tensor, exponent: float) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    values = values.clamp_min(_LEAST * values.max().clamp_min(1e-30))
    power: torch.Tensor = (vectors * values.pow(exponent)) @ vectors.T
    return power
