"""From a checkpoint to candidates and prices: streams the blocks backwards and rounds each one as it passes.

Statistics of a block are used at once and forgotten, so that memory and disk hold one block's moments,
however many blocks there are. After each block the state is stored: the gradients at its input, and the
prices so far.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rockledge.model.block import Linear, decoder, layer_name
from rockledge.quantization.calibration.calibrate import (
    BlockStatistics,
    HeadStatistics,
    block_statistics,
    boundary,
    fresh,
    head_statistics,
)
from rockledge.quantization.rounding.candidates import (
    CHUNK,
    GPU_CHUNK,
    WIDTHS,
    Rounding,
    Term,
    joint_moments,
)
from rockledge.quantization.rounding.cut import cut
from rockledge.quantization.rounding.gptq import Feedback, feedback
from rockledge.quantization.rounding.moments import second_moments
from rockledge.quantization.rounding.price import activation_price, band_prices, row_errors
from rockledge.quantization.transforming.order import arranged, arranged_moments, channel_order, store_order
from rockledge.quantization.transforming.rotate import RotatedModel
from rockledge.quantization.work.candidate import Candidate
from rockledge.quantization.work.slices import Slices
from rockledge.quantization.work.store import BandPrices, Prices, WorkDirectory, stored_band

Progress = Callable[[str, int, int], None]
"""Called with (stage, units done, units in all)."""

_HEAD, _BACKWARD = "head", "backward"  # states in the work directory


def measure(
    model: RotatedModel,
    tokens: npt.NDArray[np.int64],
    sequences: int,
    gradient_sequences: int,
    work: WorkDirectory,
    seed: int,
    slices: Slices,
    progress: Progress,
    widths: Sequence[int] = WIDTHS,
) -> Prices:
    """Fills `work` with candidates of every linear at `widths` and returns the prices, which are stored too.

    `record_inputs` has left in `work` what it makes of `tokens` int64 [S, T]; of these the first `sequences`
    count, and the first `gradient_sequences` also give gradients. What `work` holds already is not done
    again.
    """
    config = model.config
    shape, layers = (*tokens.shape, config.hidden), config.layers
    count = min(gradient_sequences, sequences)
    pricing = _Pricing(model, work, widths, slices)
    head, gradients = _head(model, work.array(boundary(layers), shape)[:sequences], count, work, seed, slices)
    done = 0
    if (state := work.state(_BACKWARD)) is not None:
        numbers, arrays = state
        done, slices.share = numbers["done"], numbers["share"]
        pricing.resume(numbers)
        gradients[:] = arrays["gradients"]
    for layer in reversed(range(layers - done)):
        weights = model.block_weights(layer, online=False)
        inputs = work.array(boundary(layer), shape)[:sequences]
        statistics, gradients = slices.fitting(
            partial(block_statistics, model, layer, weights, inputs, gradients, slices)
        )
        del inputs
        # From here on the plain weights and moments are free: for a wide feed-forward that is a gigabyte.
        weights, statistics = pricing.ordered(layer, weights, statistics)
        pricing.block(layer, weights, statistics)
        del weights, statistics  # two gigabytes that embedding and head, after the last block, can use
        done += 1
        numbers = {"done": done, "share": slices.share, **pricing.numbers()}
        work.put_state(_BACKWARD, numbers, {"gradients": gradients})
        work.drop_array(boundary(layer))
        progress("round", done, layers + 1)
    pricing.ends(head, embedding_term(model, head, gradients, tokens[:sequences]))
    prices = pricing.prices(slices.notes())
    work.put_prices(prices)
    forget(work, layers)
    progress("round", layers + 1, layers + 1)
    return prices


def begun(work: WorkDirectory) -> bool:
    """Whether the forward pass is over and used: its arrays are dropped as blocks are rounded."""
    return work.has_state(_BACKWARD)


def rounded_blocks(work: WorkDirectory) -> int:
    """How many blocks have been rounded, of all and the ends."""
    state = work.state(_BACKWARD)
    return 0 if state is None else int(state[0]["done"])


def forget(work: WorkDirectory, layers: int) -> None:
    """Removes what only measuring needs."""
    for name in (_HEAD, _BACKWARD):
        work.drop_state(name)
    for layer in range(layers):
        work.drop_array(boundary(layer))


def _head(
    model: RotatedModel,
    outputs: npt.NDArray[np.float32],
    count: int,
    work: WorkDirectory,
    seed: int,
    slices: Slices,
) -> tuple[HeadStatistics, npt.NDArray[np.float32]]:
    """Statistics of the head, and gradients at the last block's output for the first `count` sequences."""
    gradients = fresh((count, *outputs.shape[1:]))
    if (state := work.state(_HEAD)) is not None:
        numbers, arrays = state
        gradients[:] = arrays.pop("gradients")
        slices.share = numbers["share"]
        stored = {name: torch.from_numpy(array).to(model.device) for name, array in arrays.items()}
        return HeadStatistics(rounding=numbers["rounding"], **stored), gradients
    head = slices.fitting(lambda: head_statistics(model, outputs, gradients, seed, slices))
    tensors = {
        "moments": head.moments,
        "sensitivity": head.sensitivity,
        "frequency": head.frequency,
    }
    work.put_state(
        _HEAD,
        {"rounding": head.rounding, "share": slices.share},
        {"gradients": gradients, **{name: tensor.cpu().numpy() for name, tensor in tensors.items()}},
    )
    return head, gradients


def embedding_term(
    model: RotatedModel,
    head: HeadStatistics,
    gradients: npt.NDArray[np.float32],
    tokens: npt.NDArray[np.int64],
) -> Term:
    """Why an embedding's error matters: it enters the residual stream as often as its token occurs, and there
    has `gradients` fp32 [S, T, hidden], at `tokens` int64.

    Half of a token's frequency is counted, half is what the model itself predicts: most tokens never occur
    in a calibration text.
    """
    device = head.frequency.device
    flat = model.at_embedding(torch.from_numpy(gradients.reshape(-1, gradients.shape[-1])).to(device))
    counted = torch.bincount(torch.from_numpy(tokens.reshape(-1)), minlength=len(head.frequency)).to(device)
    moments = second_moments(flat, diagonal=head.moments.dim() == 1) / len(flat)
    return Term(moments, 0.5 * counted / tokens.size + 0.5 * head.frequency)


class _Pricing:
    """Rounds linears as their statistics come in and collects the prices of their bands."""

    def __init__(
        self, model: RotatedModel, work: WorkDirectory, widths: Sequence[int], slices: Slices
    ) -> None:
        self._model = model
        self._work = work
        self._widths = widths
        self._slices = slices
        self._tree = decoder(model.config)
        self._bands: list[BandPrices] = []
        self._activations: dict[str, float] = {}
        self._notes: list[str] = []

    def prices(self, notes: list[str]) -> Prices:
        return Prices(tuple(self._bands), self._activations, (*self._notes, *notes))

    def numbers(self) -> dict[str, Any]:
        """All that was found so far, as JSON can hold it."""
        bands = [asdict(band) for band in self._bands]
        return {"bands": bands, "activations": self._activations, "notes": self._notes}

    def resume(self, numbers: Mapping[str, Any]) -> None:
        """Continues from what `numbers` once returned."""
        self._bands = [stored_band(band) for band in numbers["bands"]]
        self._activations, self._notes = dict(numbers["activations"]), list(numbers["notes"])

    def block(self, layer: int, weights: Mapping[str, torch.Tensor], statistics: BlockStatistics) -> None:
        """Rounds and prices a block's linears, `ordered` before."""
        known: torch.Tensor | None = None
        for group in self._tree.layers[layer].groups:
            for linear in group.linears:
                role = linear.role
                name, moments = layer_name(layer, role), statistics.moments[role]
                if moments is not known:
                    known, how = moments, self._feedback(name, moments)
                self._round(
                    linear,
                    name,
                    weights[role],
                    [Term(moments, statistics.sensitivity[role])],
                    how,
                    weights.get(role + ".bias"),
                )
            first = layer_name(layer, group.first.role)
            self._activations[first] = activation_price(statistics.rounding[group.place])

    def ends(self, head: HeadStatistics, embedding: Term) -> None:
        """Embedding and head: one matrix with two reasons when tied, two matrices otherwise."""
        reading = Term(head.moments, head.sensitivity)
        embed, matrix = self._tree.embed, self._tree.head
        table = self._model.embedding()
        terms = [reading, embedding] if self._tree.tied else [embedding]
        self._round(embed, embed.role, table, terms, self._feedback(embed.role, joint_moments(terms)))
        if not self._tree.tied:
            del table  # both at a time would be the largest thing in memory
            table = self._model.head()
            how = self._feedback(matrix.role, reading.moments)
            self._round(matrix, matrix.role, table, [reading], how)
        self._activations[matrix.role] = activation_price(head.rounding)

    def _feedback(self, place: str, moments: torch.Tensor) -> Feedback | None:
        """What error feedback needs; None where there is none."""
        if self._model.steps.rounding == "nearest":
            return None

        def raised(damping: float) -> None:
            self._notes.append(
                f"The second moments of {place} are singular; their damping was raised to {damping:g}."
            )

        return feedback(moments, activation_order=self._model.steps.activation_order, raised=raised)

    def ordered(
        self, layer: int, weights: Mapping[str, torch.Tensor], statistics: BlockStatistics
    ) -> tuple[dict[str, torch.Tensor], BlockStatistics]:
        """Feed-forward channels in the order of their cost, and down's input as the runtime transforms it."""
        gated = self._tree.layers[layer].gated
        block = self._model.online.get(gated.groups[1].place, 0)
        moments, sensitivity = dict(statistics.moments), dict(statistics.sensitivity)
        twins = (gated.gate.role, gated.up.role)
        costs = sum(sensitivity[role] * row_errors(weights[role], moments[role]) for role in twins)
        order = torch.arange(gated.gate.rows, device=self._model.device)
        if self._model.steps.channel_order == "price":
            spans = cut(gated.gate, self._model.config.head_dim)
            order = channel_order(torch.as_tensor(costs), spans, block)
        store_order(self._work.path, layer, order)
        for role in twins:
            sensitivity[role] = sensitivity[role][order].contiguous()
        moments[gated.down.role] = arranged_moments(moments[gated.down.role], order, block)
        arrangement = arranged(weights, gated, order, block)
        return arrangement, replace(statistics, moments=moments, sensitivity=sensitivity)

    def _round(
        self,
        linear: Linear,
        name: str,
        weights: torch.Tensor,
        terms: list[Term],
        how: Feedback | None,
        bias: torch.Tensor | None = None,
    ) -> None:
        def rounded() -> list[Candidate]:
            chunk = self._slices.of(CHUNK if self._model.device.type == "cpu" else GPU_CHUNK)
            rounding = Rounding(weights, terms, self._model.steps, how, chunk)
            return [rounding.at(bits) for bits in self._widths]

        candidates = self._slices.fitting(rounded)
        self._work.put_candidates(name, candidates, None if bias is None else bias.cpu().numpy())
        spans = cut(linear, self._model.config.head_dim)
        by_width = {c.bits: band_prices(torch.from_numpy(c.prices), spans) for c in candidates}
        for i, (start, rows) in enumerate(spans):
            prices = {bits: values[i] for bits, values in by_width.items()}
            self._bands.append(BandPrices(name, start, rows, weights.shape[1], prices))
