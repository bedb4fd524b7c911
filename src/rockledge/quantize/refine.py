"""Refinement after the widths are chosen: every block's row scales are fitted to what the blocks before it
have become.

Two streams go through the blocks, calibration text in the float model and in the quantised one as far as it
is refined; one block is in memory at a time. What a block became is stored at once under the allocation's
digest, so a killed run goes on behind it, and every allocation keeps its own.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from rockledge.artifact import ArtifactPlan
from rockledge.formats.table import Float32
from rockledge.model.family import FAMILIES
from rockledge.quantize.assemble import Assembly
from rockledge.quantize.fakequant import rounding_taps
from rockledge.quantize.order import arranged, stored_order
from rockledge.quantize.reference import Taps, block_forward
from rockledge.quantize.refine_block import QuantisedBlock, refine_block, sequences_of_refinement
from rockledge.quantize.rotate import RotatedModel
from rockledge.quantize.slices import Slices
from rockledge.quantize.store import WorkDirectory
from rockledge.quantize.transform import hadamard

# Tokens of one forward call.
_BATCH_TOKENS = 2048


def refined(
    model: RotatedModel,
    plan: ArtifactPlan,
    work: WorkDirectory,
    sequences: npt.NDArray[np.int64],
    steps: int,
    progress: Callable[[int, int], None],
) -> Assembly:
    """The linears of `plan` from the candidates in `work`, every block refined by `steps` gradient steps.

    Of `sequences` int64 [S, T] as many are used as those steps can look at. What `work` holds already is not
    done again. `progress` is called with (blocks done, blocks in all).
    """
    used = sequences[: sequences_of_refinement(steps, sequences.shape[1])]
    store = _Store(work, _digest(plan, steps))
    assembly = Assembly(plan, work, store.scale)
    layers = model.config.layers
    if store.has(layers - 1):
        return assembly
    streams = _Streams(model, plan, assembly, used)
    slices = Slices()
    for layer in range(layers):
        streams.advance(layer, store, steps, slices)
        progress(layer + 1, layers)
    return assembly


def _digest(plan: ArtifactPlan, steps: int) -> str:
    """Of all that a refinement depends on and that runs in one work directory differ in."""
    chosen = [(name, spec.bands, spec.planes) for name, spec in plan.linears.items()]
    return hashlib.sha256(repr((chosen, steps)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Store:
    """The refined blocks of one allocation in the work directory."""

    work: WorkDirectory
    digest: str

    def has(self, layer: int) -> bool:
        return self.work.has_state(self._name(layer))

    def put(self, layer: int, shares: Mapping[str, torch.Tensor] | None) -> None:
        arrays = {role: share.cpu().numpy() for role, share in (shares or {}).items()}
        self.work.put_state(self._name(layer), {}, arrays)

    def scale(self, name: str, scale: Float32) -> Float32:
        """The scales of a linear as refined; as they are outside of blocks, and where nothing was gained."""
        if not name.startswith("layers."):
            return scale
        _, layer, role = name.split(".", 2)
        state = self.work.state(self._name(int(layer)))
        if state is None or role not in state[1]:
            return scale
        refined: Float32 = scale * state[1][role]
        return refined

    def _name(self, layer: int) -> str:
        return f"refined.{self.digest}.{layer}"


class _Streams:
    """The same text in the float model and in the quantised one, in front of the same block, fp32 [S, T,
    hidden] both, in main memory."""

    def __init__(
        self, model: RotatedModel, plan: ArtifactPlan, assembly: Assembly, sequences: npt.NDArray[np.int64]
    ) -> None:
        self._model = model
        self._plan = plan
        self._assembly = assembly
        tokens = torch.from_numpy(sequences)
        self._float = model.embedding()[tokens.to(model.device)].cpu()
        self._quantised = assembly.weights("embed", model.device)[tokens.to(model.device)].cpu()
        family = FAMILIES[model.config.family]
        self._roles = tuple(linear.role for linear in family.linears if "{i}" in linear.hf)

    def advance(self, layer: int, store: _Store, steps: int, slices: Slices) -> None:
        """Refines a block unless it is in the store, and takes both streams through it."""
        model = self._model
        order = stored_order(store.work.path, layer).to(model.device)
        weights = arranged(model.block_weights(layer, online=False), order, model.ffn_block)
        self._float = self._through(weights, self._float, self._float_taps, slices)
        # Biases and gains stay; the quantised matrices take the place of the others in memory.
        for role, name in self._names(layer):
            weights[role] = self._weights(name)
        if not store.has(layer):
            block = QuantisedBlock(
                weights, self._roles, self._model.config, self._taps(layer, straight_through=True)
            )
            store.put(
                layer,
                slices.fitting(lambda: refine_block(block, self._quantised, self._float, steps, slices)),
            )
            for role, name in self._names(layer):
                weights[role] = self._weights(name)
        self._quantised = self._through(weights, self._quantised, self._taps(layer), slices)

    def _weights(self, name: str) -> torch.Tensor:
        return self._assembly.weights(name, self._model.device)

    def _names(self, layer: int) -> list[tuple[str, str]]:
        return [(role, f"layers.{layer}.{role}") for role in self._roles]

    def _taps(self, layer: int, *, straight_through: bool = False) -> Taps:
        return rounding_taps(
            layer,
            lambda name: self._plan.linears[name].planes,
            self._model.ffn_block,
            straight_through=straight_through,
        )

    def _float_taps(self, place: str, x: torch.Tensor) -> torch.Tensor:
        return hadamard(x, self._model.ffn_block) if place == "ffn.down" else x

    @torch.no_grad()
    def _through(
        self, weights: Mapping[str, torch.Tensor], x: torch.Tensor, taps: Taps, slices: Slices
    ) -> torch.Tensor:
        def all_parts() -> torch.Tensor:
            parts = x.split(max(1, slices.of(_BATCH_TOKENS) // x.shape[1]))
            device, config = self._model.device, self._model.config
            return torch.cat([block_forward(weights, part.to(device), config, taps).cpu() for part in parts])

        return slices.fitting(all_parts)
