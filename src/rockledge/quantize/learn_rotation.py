"""The part of the residual stream's rotation that can be learned: the small orthogonal mix of its blocks.

Rounding an input to int8 costs by the square of its largest value. The random mix spreads outliers as well as
chance does; gradient descent over orthogonal matrices (each step retracted by a QR decomposition) lowers the
peaks further. In contrast to SpinQuant (arXiv 2405.16406) nothing is run backward through the model: norms
commute with rotations, so the inputs behind them, seen once, say what any other mix would make of them.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from rockledge.errors import UsageError
from rockledge.formats.hadamard import Rotation
from rockledge.quantize.reference import block_forward
from rockledge.quantize.rotate import RotatedModel

# What is looked at: blocks, evenly spread, and tokens of each.
_BLOCKS = 8
_TOKENS = 512
_STEPS, _RATE = 80, 0.02
# A peak is measured by this norm, which all large values have a part in.
_POWER = 16


def learned(model: RotatedModel, sequences: npt.NDArray[np.int64]) -> RotatedModel:
    """`model` with a mix learned on the first of `sequences` int64 [S, T].

    UsageError where there is no mix: without a rotation, and for a power of two of channels.
    """
    if model.rotation is None or model.rotation.odd == 1:
        raise UsageError(
            f"With {model.config.hidden} channels, a power of two, there is no rotation to learn; take "
            "rotate: hadamard instead."
        )
    inputs = list(_inputs(model, sequences[: max(1, _TOKENS // sequences.shape[1])]))
    return replace(model, rotation=flattest(model.rotation, inputs))


def flattest(rotation: Rotation, inputs: list[torch.Tensor]) -> Rotation:
    """`rotation` with the mix that makes the peaks of `inputs` small, fp32 [T, hidden] each, which are turned
    by it already."""
    mix = torch.from_numpy(rotation.mix).to(inputs[0].device)
    # In front of the mix: blocks [T, odd, block].
    parts = [torch.einsum("tib,ji->tjb", x.view(-1, rotation.odd, rotation.block), mix) for x in inputs]
    free = mix.clone().requires_grad_(True)
    descent = torch.optim.Adam([free], lr=_RATE)
    for _ in range(_STEPS):
        peaks = [torch.einsum("tjb,ji->tib", part, _orthogonal(free)).flatten(1) for part in parts]
        loss = torch.stack([x.abs().pow(_POWER).sum(dim=1).pow(2 / _POWER).mean() for x in peaks]).mean()
        descent.zero_grad()
        loss.backward()
        descent.step()
    return replace(rotation, mix=_orthogonal(free.detach().double()).float().cpu().numpy())


@torch.no_grad()
def _inputs(model: RotatedModel, sequences: npt.NDArray[np.int64]) -> Iterator[torch.Tensor]:
    """What linears behind norms see in some blocks, fp32 [T, hidden] each."""
    layers = model.config.layers
    seen: list[torch.Tensor] = []

    def tap(place: str, x: torch.Tensor) -> torch.Tensor:
        if place in ("attn.in", "ffn.in"):
            seen.append(x.flatten(0, 1))
        return x

    x = model.embedding()[torch.from_numpy(sequences).to(model.device)]
    for layer in range(layers):
        x = block_forward(model.block_weights(layer, online=False), x, model.config, tap)
        if layer % max(1, layers // _BLOCKS) == 0:
            yield from seen
        seen.clear()


def _orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """The orthogonal factor of a QR decomposition whose R has a positive diagonal: smooth in `matrix`."""
    q, r = torch.linalg.qr(matrix)
    orthogonal: torch.Tensor = q * torch.sign(torch.diagonal(r))
    return orthogonal
