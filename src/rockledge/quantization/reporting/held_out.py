"""How far the quantised model is from the float one, on calibration text that was not calibrated on."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from rockledge.artifact import ArtifactPlan
from rockledge.eval.divergence import DivergenceReport, divergence
from rockledge.quantization.float_model.logits import finished
from rockledge.quantization.reporting.fakequant import Linears, QuantisedLogits
from rockledge.quantization.transforming.rotate import RotatedModel


def held_out_divergence(
    model: RotatedModel,
    plan: ArtifactPlan,
    linears: Linears,
    windows: npt.NDArray[np.int64],
    float_outputs: npt.NDArray[np.float32],
    progress: Callable[[int, int], None],
) -> DivergenceReport:
    """Divergence on `windows` int64 [S, T], given the float model's last block outputs fp32 [S, T,
    hidden]."""
    tokens = [tuple(window.tolist()) for window in windows]
    with torch.no_grad():
        head = model.head()
        states = {
            window: model.head_input(torch.from_numpy(output).to(model.device))
            for window, output in zip(tokens, float_outputs, strict=True)
        }
    quantised = QuantisedLogits(
        linears,
        model.tree,
        model.online,
        tokens,
        planes=lambda name: plan.linears[name].planes,
        stream=model.stream,
        head_input=model.head_input,
        gains=lambda name: model.gain(name, balance=False).cpu().numpy(),  # in floats balance is nothing
        device=model.device,
        progress=progress,
    )

    def float_logits(window: Sequence[int]) -> npt.NDArray[np.float32]:
        products = states[tuple(window)] @ head.T
        logits: npt.NDArray[np.float32] = finished(products, model.tree).cpu().numpy()
        return logits

    return divergence(
        float_logits, quantised, [t for window in tokens for t in window], window=windows.shape[1]
    )
