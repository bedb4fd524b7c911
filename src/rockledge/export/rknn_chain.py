"""The model in floats beside the model of simulated operators: what each operator is built and tried with."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rockledge.export.plain import PlainModel
from rockledge.export.request import ExportRequest
from rockledge.export.rknn_toolkit import ToolkitError
from rockledge.model.block import layer_name
from rockledge.quantization.float_model.forward import (
    block_forward,
    block_weights,
    head_forward,
    head_weights,
    scaled,
)
from rockledge.quantization.float_model.logits import finished

Float32 = npt.NDArray[np.float32]
Ends = dict[str, tuple[float, float]]

Build = Callable[[str, Float32, Float32, Float32, Ends], Float32]
"""(name, inputs to calibrate with, inputs to simulate, the float outputs for those, largest inputs and
outputs of its linears) -> simulated outputs; arrays are fp32 [texts, rows, channels]."""


@torch.no_grad()
def run_chain(
    plain: PlainModel, windows: Sequence[Sequence[int]], build: Build, request: ExportRequest
) -> tuple[list[Float32], list[Float32]]:
    """Builds every operator in the order of the forward pass; the logits (or final states) of each window in
    floats, and after all simulated operators."""
    tree = plain.tree
    rows = torch.from_numpy(plain.tensor(tree.embed.role))[torch.tensor([list(one) for one in windows])]
    floats = scaled(rows, tree)
    chain = floats
    for number in range(len(tree.layers)):
        weights = block_weights(plain, number)
        watch = Watch()
        after = block_forward(weights, floats, tree, number, watch.tap, watch.output)
        largest = watch.largest(plain, number)
        built = None
        if request.blocks:
            try:
                name = layer_name(number, "block")
                wanted = block_forward(weights, chain, tree, number)
                built = build(name, floats.numpy(), chain.numpy(), wanted.numpy(), largest)
            except ToolkitError as error:
                request.note(f"{error}; its linears were built in its place.")
        if built is None:
            chain = _by_linears(plain, number, weights, chain, watch.inputs, largest, build)
        else:
            chain = torch.from_numpy(np.ascontiguousarray(built))
        floats = after
    return _ends(plain, floats, chain, build)


def places(plain: PlainModel, number: int) -> dict[str, str]:
    """By the role of each linear of layer `number`, the place of its input."""
    groups = plain.tree.layers[number].groups
    return {linear.role: group.place for group in groups for linear in group.linears}


class Watch:
    """What linears of a layer read and write."""

    def __init__(self) -> None:
        self.inputs: dict[str, torch.Tensor] = {}
        self.largest_in: dict[str, float] = {}
        self.largest_out: dict[str, float] = {}

    def tap(self, place: str, x: torch.Tensor) -> torch.Tensor:
        self.inputs[place] = x
        self.largest_in[place] = float(x.abs().max())
        return x

    def output(self, role: str, y: torch.Tensor) -> torch.Tensor:
        self.largest_out[role] = float(y.abs().max())
        return y

    def largest(self, plain: PlainModel, number: int) -> Ends:
        """By the full name of each linear of layer `number`, the largest absolute input and output."""
        return {
            layer_name(number, role): (self.largest_in[place], self.largest_out[role])
            for role, place in places(plain, number).items()
        }


def _by_linears(
    plain: PlainModel,
    number: int,
    weights: Mapping[str, torch.Tensor],
    chain: torch.Tensor,
    calibration: Mapping[str, torch.Tensor],
    largest: Ends,
    build: Build,
) -> torch.Tensor:
    """A layer with simulated linears; what joins them is computed in floats."""
    watch, place_of = Watch(), places(plain, number)

    def simulated(role: str, y: torch.Tensor) -> torch.Tensor:
        place = place_of[role]
        found = build(
            layer_name(number, role),
            calibration[place].numpy(),
            watch.inputs[place].numpy(),
            y.numpy(),
            largest,
        )
        return torch.from_numpy(np.ascontiguousarray(found, np.float32)).reshape(y.shape)

    return block_forward(weights, chain, plain.tree, number, watch.tap, simulated)


def _ends(
    plain: PlainModel, floats: torch.Tensor, chain: torch.Tensor, build: Build
) -> tuple[list[Float32], list[Float32]]:
    tree, weights = plain.tree, head_weights(plain)
    inputs: list[torch.Tensor] = []

    def tap(place: str, x: torch.Tensor) -> torch.Tensor:
        inputs.append(x)
        return x

    expected = head_forward(weights, floats, tree, tap)
    if tree.headless:
        return _listed(expected), _listed(head_forward(weights, chain, tree))
    head_forward(weights, chain, tree, tap)
    calibration, reached = inputs
    products = reached @ weights["head"].T
    own = calibration @ weights["head"].T
    ends = {tree.head.role: (float(calibration.abs().max()), float(own.abs().max()))}
    found = build(tree.head.role, calibration.numpy(), reached.numpy(), products.numpy(), ends)
    simulated = finished(torch.from_numpy(np.ascontiguousarray(found, np.float32)), tree)
    return _listed(expected), _listed(simulated)


def _listed(values: Any) -> list[Float32]:
    return list(values.numpy())
