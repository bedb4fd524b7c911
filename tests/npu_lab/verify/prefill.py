"""A prefill whose linear layers are our programs: the float reference with its taps, the rest as the CPU.

Every linear's int32 sums are compared with the integer specification, which the CPU kernels keep bit for bit,
and the prefill goes on from the programs' sums.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from rockledge.artifact import Artifact, open_artifact
from rockledge.formats import spec
from rockledge.formats.activations import quantize_activations
from rockledge.formats.packing import dequantize, unpack
from rockledge.model.checkpoint import open_checkpoint
from rockledge.npu.programs.matmul import compile_matmul
from rockledge.npu.programs.tile_search import plan
from rockledge.quantization.float_model.forward import block_forward
from rockledge.quantization.transforming.hadamard import hadamard
from rockledge.quantization.transforming.rotate import rotated

Sums = npt.NDArray[np.int32]
Run = Callable[..., Sums]


class NpuLinears:
    """Linear layers of an artifact through `run`, one launch at a time. `checked` counts compared sums."""

    def __init__(self, artifact: Artifact, run: Run) -> None:
        self.artifact = artifact
        self.checked = 0
        self._run = run

    def input(self, name: str, x: torch.Tensor) -> None:
        """Remembers the quantised input [1, T, K] of the linears that read at a place."""
        self._q, self._scale = quantize_activations(x[0].numpy(), self.artifact.planes(name))

    def output(self, name: str) -> torch.Tensor:
        """[1, T, N] of a linear on that input, from the sums of our programs."""
        packed, q = self.artifact.linear(name), self._q
        w8 = unpack(packed)
        rows = q.reshape(-1, q.shape[-1])  # the planes of a token are rows beside each other
        matmul = compile_matmul(plan(len(rows), *w8.shape))
        sums = matmul.multiply(rows, w8, self._run).reshape(*q.shape[:2], -1)
        assert (sums == spec.integer_sums(q, w8)).all(), name
        self.checked += sums.size
        y = spec.epilogue(sums.astype(np.int64), packed.scale, self._scale, packed.bias)
        return torch.from_numpy(y)[None]


# The linear whose planes hold for all that read at a place.
FIRST = {"attn.in": "attn.q", "ffn.in": "ffn.gate"}


@torch.no_grad()
def npu_logits(
    source: Path, artifact_path: Path, tokens: list[int], run: Run
) -> tuple[npt.NDArray[np.float32], int]:
    """Logits [tokens, vocab] of a quantised checkpoint, and how many int32 sums were compared on the way."""
    artifact, model = open_artifact(artifact_path), rotated(open_checkpoint(source))
    linears, config = NpuLinears(artifact, run), artifact.config
    x = torch.from_numpy(dequantize(artifact.linear("embed"))[tokens])[None]
    for layer in range(config.layers):
        prefix = f"layers.{layer}."
        weights = {
            name.removeprefix(prefix): torch.from_numpy(dequantize(artifact.linear(name)))
            for name in artifact.linears
            if name.startswith(prefix)
        }

        def inputs(place: str, x: torch.Tensor, prefix: str = prefix) -> torch.Tensor:
            if place == "ffn.down":
                x = hadamard(x, artifact.online.get("ffn.down", 0))
            linears.input(prefix + FIRST.get(place, place), x)
            return x

        def outputs(role: str, y: torch.Tensor, prefix: str = prefix) -> torch.Tensor:
            return linears.output(prefix + role)

        x = block_forward(weights, x, model.tree, layer, inputs, outputs)
    name = "embed" if config.tied else "head"
    linears.input(name, model.head_input(x))
    return linears.output(name)[0].numpy(), linears.checked
