"""One streamed forward and one streamed backward pass: what every linear sees, and how much its outputs
matter.

The forward pass leaves the inputs of every block on disk. The backward pass takes the blocks in reverse,
computes each one again from its stored input, and computes the gradient at its input from the one at its
output; in between it sees every linear's input and the gradient at every linear's output. One block is in
memory at a time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from rockledge.errors import CheckpointError
from rockledge.formats.activations import LARGEST
from rockledge.quantization.float_model.forward import block_forward
from rockledge.quantization.float_model.logits import finished, slope
from rockledge.quantization.transforming.hadamard import hadamard
from rockledge.quantization.transforming.rotate import RotatedModel
from rockledge.quantization.work.slices import Slices
from rockledge.quantization.work.store import WorkDirectory

Progress = Callable[[int, int], None]
"""Called with (units done, units in all)."""

# Tokens of one forward or backward step: bounds activations and attention scores in memory.
_STEP_TOKENS = 2048
# Tokens whose logits exist at a time.
_LOGIT_TOKENS = 512


@dataclass(frozen=True)
class BlockStatistics:
    """Of one layer. By role: second moments E[w x x^T] of its linears' inputs fp32 [K, K] or their diagonal
    [K], and the mean squared gradient of every output channel fp32 [N]. By place: E[step^2 |g|^2] of int8
    rounding, with g a token's gradient at that input (`price.activation_price`). Moments are those after an
    online Hadamard; of down's inputs, those before it.

    A token's weight w is the square of its gradient at the linear's output, 1 on average. An error in the
    weights matters where it meets tokens that matter: of the keys, most of all in the first token, which all
    queries look at; of what that token alone writes with its massive activation, hardly ever.
    """

    moments: Mapping[str, torch.Tensor]
    sensitivity: Mapping[str, torch.Tensor]
    rounding: Mapping[str, float]


@dataclass(frozen=True)
class HeadStatistics:
    """Of the head: second moments E[x x^T] of its input and `rounding` as above, E[p (1 - p)] of every
    token's logit fp32 [vocab], times the square of its slope, and E[p] fp32 [vocab]."""

    moments: torch.Tensor
    rounding: float
    sensitivity: torch.Tensor
    frequency: torch.Tensor


class _Moments:
    """Running sums of w x x^T over tokens, and of their weights w."""

    def __init__(self, *, diagonal: bool) -> None:
        self._diagonal = diagonal
        self._sum: torch.Tensor | None = None
        self._total = 0.0
        self._weights = [0.0, 0.0]  # of first tokens, of all others
        self._tokens = [0, 0]

    def add(self, x: torch.Tensor, weights: torch.Tensor | None = None) -> None:
        """Inputs `x` [S, T, K] of whole sequences and their `weights` [S, T]. Without weights a token gets
        what was usual so far in its place, first or not; 1 where nothing was."""
        rows = x.detach().reshape(-1, x.shape[-1])
        if weights is None:
            weights = self._usual(x)
        else:
            for i, part in enumerate((weights[:, :1], weights[:, 1:])):
                self._weights[i] += float(part.double().sum())
                self._tokens[i] += part.numel()
        rows = rows * weights.reshape(-1, 1).sqrt()
        if self._sum is None:
            size = rows.shape[1]
            self._sum = torch.zeros((size,) if self._diagonal else (size, size), device=rows.device)
        if self._diagonal:
            self._sum += rows.square().sum(dim=0)
        else:
            self._sum.addmm_(rows.T, rows)
        self._total += float(weights.double().sum())

    def _usual(self, x: torch.Tensor) -> torch.Tensor:
        first, other = (w / n if n else 1.0 for w, n in zip(self._weights, self._tokens, strict=True))
        weights = torch.full(x.shape[:-1], other, device=x.device)
        weights[:, 0] = first
        return weights

    def mean(self) -> torch.Tensor:
        if self._sum is None:
            raise ValueError("no input was seen")
        return self._sum.div_(self._total) if self._total > 0 else self._sum


class _Steps:
    """Running sum of squared int8 step times squared gradient over the tokens that have one.

    Both factors are taken token by token: a first token with a massive activation has by far the largest step
    and hardly any gradient, and the product of two means would say that its step matters everywhere.
    """

    def __init__(self, hadamard_block: int = 0) -> None:
        self._block = hadamard_block
        self._sum = 0.0
        self._count = 0

    def add(self, x: torch.Tensor, gradient: torch.Tensor) -> None:
        """`gradient` at the inputs `x`, both [..., K]. The online Hadamard does not change its length."""
        seen = x.detach().reshape(-1, x.shape[-1])
        seen = hadamard(seen, self._block) if self._block else seen
        steps = seen.abs().amax(dim=1) / LARGEST[1]
        squares = gradient.detach().reshape(seen.shape).square().sum(dim=1)
        self._sum += float((steps.square() * squares).double().sum())
        self._count += len(seen)

    def mean(self) -> float:
        return self._sum / self._count


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
            first[:] = model.stream(model.embedding()[torch.from_numpy(tokens)]).cpu().numpy()
    for layer in range(max(known, default=0), config.layers):
        weights, inputs = model.block_weights(layer, online=False), work.array(boundary(layer), shape)
        with work.new_array(boundary(layer + 1), shape) as outputs:
            slices.fitting(lambda: run_block(model, layer, weights, inputs, outputs, slices))  # noqa: B023
            if not np.isfinite(outputs).all():
                raise CheckpointError(
                    f"block {layer} produces values that are NaN or infinite for the calibration text; "
                    "the checkpoint is damaged, fetch it again"
                )
        progress(layer + 1, config.layers)


def boundary(layer: int) -> str:
    """The work directory's name for the inputs of block `layer`."""
    return f"inputs.{layer}"


@torch.no_grad()
def run_block(
    model: RotatedModel,
    layer: int,
    weights: Mapping[str, torch.Tensor],
    inputs: npt.NDArray[np.float32],
    outputs: npt.NDArray[np.float32],
    slices: Slices,
) -> None:
    """Fills `outputs` of one layer, of which `weights` are plain, from its `inputs`, both fp32 [S, T,
    hidden]."""
    tree, taps = model.tree, model.taps(online=False)
    batch = max(1, slices.of(_STEP_TOKENS) // inputs.shape[1])
    for first in range(0, len(inputs), batch):
        x = torch.from_numpy(inputs[first : first + batch]).to(model.device)
        outputs[first : first + batch] = block_forward(weights, x, tree, layer, taps).cpu().numpy()


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
    head, tree = model.head(), model.tree
    generator = torch.Generator(device=model.device).manual_seed(seed)
    moments, steps = _Moments(diagonal=model.steps.moments == "diagonal"), _Steps()
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
            moments.add(z.unsqueeze(0), torch.ones(1, len(z), device=z.device))
            if not wanted:
                continue
            with torch.no_grad():
                logits = finished(z @ head.T, tree)
                p, steep = torch.softmax(logits, dim=1), slope(logits, tree)
                frequency += p.sum(dim=0)
                variance += ((p - p * p) * steep**2).sum(dim=0)
                count += len(p)
                labels = torch.multinomial(p, 1, generator=generator)
                p.scatter_add_(1, labels, torch.full_like(labels, -1, dtype=p.dtype))
                gradient = p.mul_(steep) @ head
            steps.add(z, gradient)
            z.backward(gradient)
            gradients[s, part] = _gradient(x).cpu().numpy()
    return HeadStatistics(moments.mean(), steps.mean(), variance / count, frequency / count)


def block_statistics(
    model: RotatedModel,
    layer: int,
    weights: Mapping[str, torch.Tensor],
    inputs: npt.NDArray[np.float32],
    gradients: npt.NDArray[np.float32],
    slices: Slices,
) -> tuple[BlockStatistics, npt.NDArray[np.float32]]:
    """Statistics of a layer whose plain weights (`block_weights(layer, online=False)`) are `weights`.

    `inputs` fp32 [S, T, hidden]; `gradients` fp32 [S', T, hidden], S' <= S, holds the gradients at the
    block's output for the first S' sequences; those at its input are returned.
    """
    tree, taps = model.tree, _Taps(model, layer)
    before = fresh(gradients.shape)
    batch = max(1, slices.of(_STEP_TOKENS) // inputs.shape[1])
    for first in range(0, len(gradients), batch):
        part = slice(first, min(first + batch, len(gradients)))
        x = torch.from_numpy(inputs[part]).to(model.device).requires_grad_(True)
        y = block_forward(weights, x, tree, layer, taps.see, taps.keep)
        y.backward(torch.from_numpy(gradients[part]).to(model.device))
        taps.add_gradients()
        before[part] = _gradient(x).cpu().numpy()
    with torch.no_grad():
        for first in range(len(gradients), len(inputs), batch):
            x = torch.from_numpy(inputs[first : first + batch]).to(model.device)
            block_forward(weights, x, tree, layer, taps.see)
    return taps.statistics(), before


def fresh(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """An array for numbers that go into matrix products, always aligned alike: the order in which a product
    adds up may depend on alignment, and a resumed run must end in the same bytes."""
    array: npt.NDArray[np.float32] = torch.empty(shape).numpy()
    return array


class _Taps:
    """Gathers inputs and output gradients of one block's linears; sequences that have gradients first."""

    def __init__(self, model: RotatedModel, number: int) -> None:
        self._weighted = model.steps.token_weights == "gradient"
        self._turn = model.taps(online=False)
        layer = model.tree.layers[number]
        self._readers = {group.place: [linear.role for linear in group.linears] for group in layer.groups}
        diagonal = model.steps.moments == "diagonal"
        # Where all tokens count alike, linears that share an input share its moments.
        self._moments = {
            role: _Moments(diagonal=diagonal)
            for roles in self._readers.values()
            for role in (roles if self._weighted else roles[:1])
        }
        late = layer.ordered.place
        self._steps = {
            place: _Steps(model.online.get(place, 0) if place == late else 0) for place in self._readers
        }
        self._inputs: dict[str, torch.Tensor] = {}
        self._outputs: dict[str, torch.Tensor] = {}
        self._squares: dict[str, torch.Tensor] = {}
        self._count = 0

    def see(self, place: str, x: torch.Tensor) -> torch.Tensor:
        x = self._turn(place, x)
        if x.requires_grad:
            x.retain_grad()
            self._inputs[place] = x
            return x
        for role in self._readers[place]:
            if role in self._moments:
                self._moments[role].add(x)
        return x

    def keep(self, role: str, y: torch.Tensor) -> torch.Tensor:
        y.retain_grad()
        self._outputs[role] = y
        return y

    def add_gradients(self) -> None:
        for place, x in self._inputs.items():
            self._steps[place].add(x, _gradient(x))
            for role in self._readers[place]:
                squares = _gradient(self._outputs[role]).square()
                if role in self._moments:
                    weights = squares.sum(dim=-1)
                    self._moments[role].add(x, weights if self._weighted else torch.ones_like(weights))
                found = squares.reshape(-1, squares.shape[-1]).sum(dim=0)
                self._squares[role] = self._squares[role] + found if role in self._squares else found
        self._count += next(iter(self._inputs.values())).shape[:-1].numel()
        self._inputs.clear()
        self._outputs.clear()

    def statistics(self) -> BlockStatistics:
        means = {role: moments.mean() for role, moments in self._moments.items()}
        return BlockStatistics(
            {role: means.get(role, means[roles[0]]) for roles in self._readers.values() for role in roles},
            {role: total / self._count for role, total in self._squares.items()},
            {place: steps.mean() for place, steps in self._steps.items()},
        )


def _gradient(x: torch.Tensor) -> torch.Tensor:
    if x.grad is None:
        raise ValueError("the backward pass did not reach a tensor whose gradient is needed")
    return x.grad
