"""From a checkpoint to candidates and prices: streams the blocks backwards and rounds each one as it passes.

Statistics of a block are used at once and forgotten, so that memory and disk hold one block's moments,
however many blocks there are.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from rockledge.model.family import FAMILIES, Linear
from rockledge.quantize.calibrate import (
    BlockStatistics,
    HeadStatistics,
    InputStatistics,
    block_statistics,
    head_statistics,
)
from rockledge.quantize.candidates import WIDTHS, Candidate, Rounding, Term
from rockledge.quantize.cut import cut
from rockledge.quantize.gptq import feedback_factor
from rockledge.quantize.order import arranged, channel_order, store_order
from rockledge.quantize.price import activation_price, band_prices, row_errors
from rockledge.quantize.rotate import RotatedModel
from rockledge.quantize.store import BandPrices, Prices, WorkDirectory
from rockledge.quantize.transform import hadamard

Progress = Callable[[str, int, int], None]
"""Called with (stage, units done, units in all)."""

# Where each linear reads: linears behind one norm share their input, the others have their own.
_PLACE_BEHIND_NORM = {"attn.norm": "attn.in", "ffn.norm": "ffn.in"}


def place_of(linear: Linear) -> str:
    """The place (`reference.Taps`) where a block's linear reads its input."""
    return _PLACE_BEHIND_NORM[linear.norm] if linear.norm else linear.role


def measure(
    model: RotatedModel,
    tokens: npt.NDArray[np.int64],
    inputs: npt.NDArray[np.float32],
    gradient_sequences: int,
    work: WorkDirectory,
    seed: int,
    progress: Progress,
    widths: Sequence[int] = WIDTHS,
) -> Prices:
    """Fills `work` with candidates of every linear at `widths` and returns the prices, which are stored too.

    `tokens` int64 [S, T], `inputs` as `record_inputs` left them for these; the first `gradient_sequences`
    sequences also give gradients.
    """
    sequences = min(gradient_sequences, len(tokens))
    gradients = np.empty((sequences, *inputs.shape[2:]), np.float32)
    pricing = _Pricing(model, work, widths)
    head = head_statistics(model, inputs[-1], gradients, seed)
    layers = model.config.layers
    for done, layer in enumerate(reversed(range(layers)), start=1):
        weights = model.block_weights(layer, online=False)
        statistics = block_statistics(model, weights, inputs[layer], gradients)
        pricing.block(layer, weights, statistics)
        progress("round", done, layers + 1)
    pricing.ends(head, _embedding_terms(head, gradients, tokens))
    progress("round", layers + 1, layers + 1)
    prices = pricing.prices()
    work.put_prices(prices)
    return prices


def _embedding_terms(
    head: HeadStatistics, gradients: npt.NDArray[np.float32], tokens: npt.NDArray[np.int64]
) -> Term:
    """An embedding's error enters the residual stream as often as its token occurs.

    Half of a token's frequency is counted, half is what the model itself predicts: most tokens never occur
    in a calibration text.
    """
    device = head.frequency.device
    flat = torch.from_numpy(gradients.reshape(-1, gradients.shape[-1])).to(device)
    counted = torch.bincount(torch.from_numpy(tokens.reshape(-1)), minlength=len(head.frequency)).to(device)
    return Term(flat.T @ flat / len(flat), 0.5 * counted / tokens.size + 0.5 * head.frequency)


class _Pricing:
    """Rounds linears as their statistics come in and collects the prices of their bands."""

    def __init__(self, model: RotatedModel, work: WorkDirectory, widths: Sequence[int]) -> None:
        self._model = model
        self._work = work
        self._widths = widths
        self._linears = {linear.role: linear for linear in FAMILIES[model.config.family].linears}
        self._bands: list[BandPrices] = []
        self._activations: dict[str, float] = {}

    def prices(self) -> Prices:
        return Prices(tuple(self._bands), self._activations)

    def block(self, layer: int, weights: Mapping[str, torch.Tensor], statistics: BlockStatistics) -> None:
        weights, statistics = self._ordered(layer, weights, statistics)
        factors = {place: feedback_factor(seen.moments) for place, seen in statistics.inputs.items()}
        for role, linear in self._linears.items():
            if "{i}" not in linear.hf:
                continue
            place = place_of(linear)
            seen, sensitivity = statistics.inputs[place], statistics.sensitivity[role]
            self._round(
                linear,
                f"layers.{layer}.{role}",
                weights[role],
                [Term(seen.moments, sensitivity)],
                factors[place],
                weights.get(role + ".bias"),
            )
            self._activations[f"layers.{layer}.{role}"] = activation_price(
                weights[role], sensitivity, seen.squared_step
            )

    def ends(self, head: HeadStatistics, embedding: Term) -> None:
        """Embedding and head: one matrix with two reasons when tied, two matrices otherwise."""
        reading = Term(head.inputs.moments, head.sensitivity)
        tied = self._model.config.tied
        table = self._model.embedding()
        self._round(self._linears["embed"], "embed", table, [reading, embedding] if tied else [embedding])
        if not tied:
            table = self._model.head()
            self._round(self._linears["head"], "head", table, [reading])
        self._activations["embed" if tied else "head"] = activation_price(
            table, head.sensitivity, head.inputs.squared_step
        )

    def _ordered(
        self, layer: int, weights: Mapping[str, torch.Tensor], statistics: BlockStatistics
    ) -> tuple[dict[str, torch.Tensor], BlockStatistics]:
        """Feed-forward channels in the order of their cost, and down's input as the runtime transforms it."""
        block = self._model.ffn_block
        seen, sensitivity = dict(statistics.inputs), dict(statistics.sensitivity)
        costs = sum(
            sensitivity[role] * row_errors(weights[role], seen["ffn.in"].moments)
            for role in ("ffn.gate", "ffn.up")
        )
        order = channel_order(
            torch.as_tensor(costs), cut(self._linears["ffn.gate"], self._model.config), block
        )
        store_order(self._work.path, layer, order)
        for role in ("ffn.gate", "ffn.up"):
            sensitivity[role] = sensitivity[role][order].contiguous()
        moments = seen["ffn.down"].moments[order][:, order].contiguous()
        turned = hadamard(hadamard(moments, block).T.contiguous(), block)
        seen["ffn.down"] = InputStatistics(turned, seen["ffn.down"].squared_step)
        return arranged(weights, order, block), BlockStatistics(seen, sensitivity)

    def _round(
        self,
        linear: Linear,
        name: str,
        weights: torch.Tensor,
        terms: list[Term],
        factor: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
    ) -> None:
        rounding = Rounding(weights, terms, factor)
        candidates: list[Candidate] = [rounding.at(bits) for bits in self._widths]
        self._work.put_candidates(name, candidates, None if bias is None else bias.cpu().numpy())
        spans = cut(linear, self._model.config)
        by_width = {c.bits: band_prices(torch.from_numpy(c.prices), spans) for c in candidates}
        for i, (start, rows) in enumerate(spans):
            prices = {bits: values[i] for bits, values in by_width.items()}
            self._bands.append(BandPrices(name, start, rows, weights.shape[1], prices))
