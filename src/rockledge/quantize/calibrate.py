"""One streamed forward and one streamed backward pass: what every linear sees, and how much its outputs
matter.

The forward pass leaves the inputs of every block on disk. The backward pass takes the blocks in reverse,
computes each one again from its stored input, and turns the gradient at its output into the gradient at its
input; in between it sees every linear's input and the gradient at every linear's output. One block is in
memory at a time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from rockledge.errors import CheckpointError
from rockledge.formats.activations import LARGEST
from rockledge.quantize.reference import block_forward
from rockledge.quantize.rotate import RotatedModel
from rockledge.quantize.slices import Slices
from rockledge.quantize.store import WorkDirectory
from rockledge.quantize.transform import hadamard

Progress = Callable[[int, int], None]
"""Called with (units done, units in all)."""

# Tokens of one forward or backward step: bounds activations and attention scores in memory.
_STEP_TOKENS = 2048
# Tokens whose logits exist at a time.
_LOGIT_TOKENS = 512


@dataclass(frozen=True)
class InputStatistics:
    """Of one place where linears read: second moments E[x x^T] fp32 [K, K] or their diagonal [K], and
    E[step^2 |g|^2] of int8 rounding, with g a token's gradient at this input (`price.activation_price`).
    """

    moments: torch.Tensor
    rounding: float


@dataclass(frozen=True)
class BlockStatistics:
    """Of one block: `inputs` by place ("attn.in", "attn.o", "ffn.in", "ffn.down"), the mean squared
    gradient of every output channel by role, fp32 [N]. The moments of "ffn.down" are those before its
    online Hadamard.
    """

    inputs: Mapping[str, InputStatistics]
    sensitivity: Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class HeadStatistics:
    """Of the head: its input, E[p (1 - p)] of every token's logit fp32 [vocab], and E[p] fp32 [vocab]."""

    inputs: InputStatistics
    sensitivity: torch.Tensor
    frequency: torch.Tensor


class _Moments:
    """Running sums of x x^T over tokens, and of squared int8 step times squared gradient over those that have
    one.

    Both factors are taken token by token: a first token with a massive activation has by far the largest step
    and hardly any gradient, and the product of two means would say that its step matters everywhere.
    """

    def __init__(self, *, diagonal: bool, hadamard_block: int = 0) -> None:
        self._diagonal = diagonal
        self._block = hadamard_block
        self._sum: torch.Tensor | None = None
        self._count = 0
        self._rounding = 0.0
        self._priced = 0

    def add(self, x: torch.Tensor) -> None:
        rows = x.detach().reshape(-1, x.shape[-1])
        if self._sum is None:
            size = rows.shape[1]
            self._sum = torch.zeros((size,) if self._diagonal else (size, size), device=rows.device)
        if self._diagonal:
            self._sum += rows.square().sum(dim=0)
        else:
            self._sum.addmm_(rows.T, rows)
        self._count += rows.shape[0]

    def add_gradient(self, x: torch.Tensor, gradient: torch.Tensor) -> None:
        """`gradient` at the inputs `x`, both [..., K]. The online Hadamard leaves its length as it is."""
        seen = x.detach().reshape(-1, x.shape[-1])
        seen = hadamard(seen, self._block) if self._block else seen
        steps = seen.abs().amax(dim=1) / LARGEST[1]
        squares = gradient.detach().reshape(seen.shape).square().sum(dim=1)
        self._rounding += float((steps.square() * squares).double().sum())
        self._priced += len(seen)

    def mean(self) -> InputStatistics:
        if self._sum is None or not self._priced:
            raise ValueError("no input or no gradient was seen")
        return InputStatistics(self._sum.div_(self._count), self._rounding / self._priced)


def record_inputs(
    model: RotatedModel,
    tokens: npt.NDArray[np.int64],
    work: WorkDirectory,
    slices: Slices,
    progress: Progress,
) -> None:
    """Runs `tokens` [S, T] through the float model and fills the arrays `boundary(i)` fp32 [S, T, hidden] of
    `work`, those that are not finished yet.

    Array i is the input of block i, the last one the output of the last block. CheckpointError when it is
    not finite.
    """
    config = model.config
    shape = (*tokens.shape, config.hidden)
    known = [layer for layer in range(config.layers + 1) if work.has_array(boundary(layer))]
    if not known:
        with work.new_array(boundary(0), shape) as first:
            first[:] = model.embedding()[torch.from_numpy(tokens)].cpu().numpy()
    for layer in range(max(known, default=0), config.layers):
        weights, inputs = model.block_weights(layer, online=False), work.array(boundary(layer), shape)
        with work.new_array(boundary(layer + 1), shape) as outputs:
            slices.fitting(lambda: run_block(model, weights, inputs, outputs, slices))  # noqa: B023
            if not np.isfinite(outputs).all():
                raise CheckpointError(
                    f"Block {layer} turns calibration text into numbers that are NaN or infinite; "
                    "the checkpoint is damaged, get it again."
                )
        progress(layer + 1, config.layers)


def boundary(layer: int) -> str:
    """The work directory's name for the inputs of block `layer`."""
    return f"inputs.{layer}"


@torch.no_grad()
def run_block(
    model: RotatedModel,
    weights: Mapping[str, torch.Tensor],
    inputs: npt.NDArray[np.float32],
    outputs: npt.NDArray[np.float32],
    slices: Slices,
) -> None:
    """Fills `outputs` of one block from its `inputs`, both fp32 [S, T, hidden]."""
    batch = max(1, slices.of(_STEP_TOKENS) // inputs.shape[1])
    for first in range(0, len(inputs), batch):
        x = torch.from_numpy(inputs[first : first + batch]).to(model.device)
        outputs[first : first + batch] = block_forward(weights, x, model.config).cpu().numpy()


def head_statistics(
    model: RotatedModel,
    outputs: npt.NDArray[np.float32],
    gradients: npt.NDArray[np.float32],
    seed: int,
    slices: Slices,
) -> HeadStatistics:
    """Statistics of the head over `outputs` fp32 [S, T, hidden] of the last block.

    For the first len(gradients) sequences labels are drawn from the model's own predictions, and the
    gradient of their negative log-likelihood at the block's output is written to `gradients` fp32 [S', T,
    hidden].
    """
    head = model.head()
    generator = torch.Generator(device=model.device).manual_seed(seed)
    moments = _Moments(diagonal=model.steps.moments == "diagonal")
    variance = torch.zeros(head.shape[0], device=model.device)
    frequency = torch.zeros_like(variance)
    count = 0
    step = slices.of(_LOGIT_TOKENS)
    for s in range(len(outputs)):
        for first in range(0, outputs.shape[1], step):
            part = slice(first, first + step)
            wanted = s < len(gradients)
            x = torch.from_numpy(outputs[s, part]).to(model.device).requires_grad_(wanted)
            z = model.head_input(x)
            moments.add(z)
            if not wanted:
                continue
            with torch.no_grad():
                p = torch.softmax(z @ head.T, dim=1)
                frequency += p.sum(dim=0)
                variance += (p - p * p).sum(dim=0)
                count += len(p)
                labels = torch.multinomial(p, 1, generator=generator)
                p.scatter_add_(1, labels, torch.full_like(labels, -1, dtype=p.dtype))
                gradient = p @ head
            moments.add_gradient(z, gradient)
            z.backward(gradient)
            gradients[s, part] = _gradient(x).cpu().numpy()
    return HeadStatistics(moments.mean(), variance / count, frequency / count)


def block_statistics(
    model: RotatedModel,
    weights: Mapping[str, torch.Tensor],
    inputs: npt.NDArray[np.float32],
    gradients: npt.NDArray[np.float32],
    slices: Slices,
) -> tuple[BlockStatistics, npt.NDArray[np.float32]]:
    """Statistics of one block whose plain weights (`block_weights(layer, online=False)`) are `weights`.

    `inputs` fp32 [S, T, hidden]; `gradients` fp32 [S', T, hidden], S' <= S, holds the gradients at the
    block's output for the first S' sequences; those at its input are returned.
    """
    taps = _Taps(model)
    before = fresh(gradients.shape)
    batch = max(1, slices.of(_STEP_TOKENS) // inputs.shape[1])
    for first in range(0, len(gradients), batch):
        part = slice(first, min(first + batch, len(gradients)))
        x = torch.from_numpy(inputs[part]).to(model.device).requires_grad_(True)
        y = block_forward(weights, x, model.config, taps.see, taps.keep)
        y.backward(torch.from_numpy(gradients[part]).to(model.device))
        taps.add_gradients()
        before[part] = _gradient(x).cpu().numpy()
    with torch.no_grad():
        for first in range(len(gradients), len(inputs), batch):
            x = torch.from_numpy(inputs[first : first + batch]).to(model.device)
            block_forward(weights, x, model.config, taps.see)
    return taps.statistics(), before


def fresh(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """An array for numbers that go into matrix products, always aligned alike: the order in which a product
    adds up may depend on alignment, and a resumed run must end in the same bytes."""
    array: npt.NDArray[np.float32] = torch.empty(shape).numpy()
    return array


class _Taps:
    """Gathers inputs and output gradients of one block's linears."""

    def __init__(self, model: RotatedModel) -> None:
        self._block = model.ffn_block
        self._diagonal = model.steps.moments == "diagonal"
        self._moments: dict[str, _Moments] = {}
        self._inputs: dict[str, torch.Tensor] = {}
        self._outputs: dict[str, torch.Tensor] = {}
        self._squares: dict[str, torch.Tensor] = {}
        self._count = 0

    def see(self, place: str, x: torch.Tensor) -> torch.Tensor:
        if place not in self._moments:
            block = self._block if place == "ffn.down" else 0
            self._moments[place] = _Moments(diagonal=self._diagonal, hadamard_block=block)
        self._moments[place].add(x)
        if x.requires_grad:
            x.retain_grad()
            self._inputs[place] = x
        return x

    def keep(self, role: str, y: torch.Tensor) -> torch.Tensor:
        y.retain_grad()
        self._outputs[role] = y
        return y

    def add_gradients(self) -> None:
        for place, x in self._inputs.items():
            self._moments[place].add_gradient(x, _gradient(x))
        self._inputs.clear()
        for role, y in self._outputs.items():
            squares = _gradient(y).square().reshape(-1, y.shape[-1])
            self._squares[role] = self._squares.get(role, torch.zeros(1, device=y.device)) + squares.sum(
                dim=0
            )
        self._count += next(iter(self._outputs.values())).shape[:-1].numel()
        self._outputs.clear()

    def statistics(self) -> BlockStatistics:
        inputs = {place: moments.mean() for place, moments in self._moments.items()}
        return BlockStatistics(inputs, {role: total / self._count for role, total in self._squares.items()})


def _gradient(x: torch.Tensor) -> torch.Tensor:
    if x.grad is None:
        raise ValueError("the backward pass did not reach a tensor whose gradient is needed")
    return x.grad
