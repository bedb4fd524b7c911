"""Refinement of one block: scales find their way back through rounded inputs."""

import pytest
import torch

from rockledge.model.family import FAMILIES
from rockledge.quantize.fakequant import rounding_taps
from rockledge.quantize.reference import block_forward
from rockledge.quantize.refine_block import QuantisedBlock, refine_block
from rockledge.quantize.slices import Slices
from rockledge.synth import SHAPES

CONFIG = SHAPES["toy"]
LINEARS = tuple(linear.role for linear in FAMILIES[CONFIG.family].linears if "{i}" in linear.hf)
STEPS = 40
SEQUENCES, TOKENS = 12, 32


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_block(*, biases: bool = False) -> dict[str, torch.Tensor]:
    generator, width = seeded(0), CONFIG.heads * CONFIG.head_dim
    narrow = CONFIG.kv_heads * CONFIG.head_dim
    shapes = {
        "attn.q": (width, CONFIG.hidden),
        "attn.k": (narrow, CONFIG.hidden),
        "attn.v": (narrow, CONFIG.hidden),
        "attn.o": (CONFIG.hidden, width),
        "ffn.gate": (CONFIG.ffn, CONFIG.hidden),
        "ffn.up": (CONFIG.ffn, CONFIG.hidden),
        "ffn.down": (CONFIG.hidden, CONFIG.ffn),
    }
    weights = {
        role: torch.randn(shape, generator=generator) / shape[1] ** 0.5 for role, shape in shapes.items()
    }
    if biases:
        for role in ("attn.q", "attn.k", "attn.v"):
            weights[role + ".bias"] = 3 * torch.randn(shapes[role][0], generator=generator)
    return {**weights, "attn.norm": torch.ones(CONFIG.hidden), "ffn.norm": torch.ones(CONFIG.hidden)}


def with_wrong_scales(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    generator = seeded(1)
    wrong = {
        role: weights[role] * (0.98 + 0.04 * torch.rand(len(weights[role]), 1, generator=generator))
        for role in LINEARS
    }
    return {**weights, **wrong}


def block(weights: dict[str, torch.Tensor]) -> QuantisedBlock:
    taps = rounding_taps(0, lambda name: 1, 32, straight_through=True)
    return QuantisedBlock(weights, LINEARS, CONFIG, taps)


@torch.no_grad()
def output(weights: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    return block_forward(weights, x, CONFIG, rounding_taps(0, lambda name: 1, 32))


def error(weights: dict[str, torch.Tensor], x: torch.Tensor, target: torch.Tensor) -> float:
    return float(((output(weights, x) - target).norm(dim=-1) / target.norm(dim=-1)).square().mean())


def text(seed: int) -> torch.Tensor:
    return torch.randn(SEQUENCES, TOKENS, CONFIG.hidden, generator=seeded(seed))


def refined(
    weights: dict[str, torch.Tensor], x: torch.Tensor, target: torch.Tensor, share: float = 1.0
) -> dict[str, torch.Tensor]:
    """The weights after refinement, which is expected to keep its result."""
    shares = refine_block(block(weights), x, target, STEPS, Slices(share))
    assert shares is not None
    assert shares.keys() == set(LINEARS)
    return {**weights, **{role: weights[role] * share[:, None] for role, share in shares.items()}}


@pytest.mark.parametrize("biases", [False, True])
def test_spoilt_scales_are_found_again(biases: bool) -> None:
    true = random_block(biases=biases)
    spoilt, x, unseen = with_wrong_scales(true), text(2), text(3)
    found = refined(spoilt, x, output(true, x))
    wanted = output(true, unseen)
    assert error(found, unseen, wanted) < 0.5 * error(spoilt, unseen, wanted)


def test_what_is_right_already_stays() -> None:
    true, x = random_block(), text(2)
    assert refine_block(block(true), x, output(true, x), 4, Slices()) is None


def test_what_helps_only_the_fitted_text_is_refused() -> None:
    true = random_block()
    spoilt, x = with_wrong_scales(true), text(2)
    target = output(true, x)
    held = SEQUENCES // 6
    # What is held back wants everything to stay as it is.
    target[-held:] = output(spoilt, x[-held:])
    assert refine_block(block(spoilt), x, target, 8, Slices()) is None


def test_a_massive_token_does_not_decide() -> None:
    """One token a hundred times as long, whose target is wrong by a tenth, against all others."""
    true = random_block()
    spoilt, x = with_wrong_scales(true), text(2)
    x[:, 0] *= 100
    wanted = output(true, x)
    target = wanted.clone()
    target[:, 0] *= 1.1
    found = refined(spoilt, x, target)
    before, after = (
        ((output(weights, x) - wanted).norm(dim=-1) / wanted.norm(dim=-1))[:, 1:].square().mean()
        for weights in (spoilt, found)
    )
    assert after < 0.7 * before


def test_smaller_slices_find_the_same() -> None:
    true = random_block()
    spoilt, x = with_wrong_scales(true), text(2)
    target = output(true, x)
    whole = refined(spoilt, x, target)
    pieces = refined(spoilt, x, target, 1 / 4)
    for role in LINEARS:
        assert torch.dist(whole[role], pieces[role]) < 0.1 * torch.dist(whole[role], spoilt[role])
