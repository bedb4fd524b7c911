"""What one operation does to the float model's own activations: noise, range, outliers, the first token."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rockledge.doctor.operation import Operation
from rockledge.doctor.text import Text
from rockledge.model.block import Attention

_TINY = 1e-30


@dataclass(frozen=True)
class Reading:
    """`snr_db`: energy of what the operation gives over that of its error, decibels.

    Of inputs, else None: `headroom_bits`, how many bits of the range the largest value of a token takes from
    the typical one (log2 of largest over root mean square, the median token); `at_end`, the share of values
    at the end of the range; `outlier_channel` and by how much it is louder than the median channel;
    `first_token`, the first token's loudness over the others' median. Of the cache: `sink`, the share of
    attention that goes to the first token. Of weights: `clipped`, the share that lies further out than
    anything their row stores. `weight` ranks operations by the noise that they put into the stream.
    """

    operation: Operation
    snr_db: float
    weight: float = 0.0
    headroom_bits: float | None = None
    at_end: float | None = None
    outlier_channel: int | None = None
    outlier_ratio: float | None = None
    first_token: float | None = None
    sink: float | None = None
    clipped: float | None = None

    def body(self) -> dict[str, Any]:
        """For `--json`: what was measured."""
        found = {key: value for key, value in asdict(self).items() if value is not None}
        del found["operation"], found["weight"]
        return {"operation": self.operation.name, **found}


def snr_db(signal: Tensor, found: Tensor) -> float:
    """Decibels; not finite numbers count as noise without end."""
    noise = float((found - signal).square().sum())
    energy = float(signal.square().sum())
    if not math.isfinite(noise) or energy <= 0:
        return -math.inf if energy > 0 else math.inf
    return 10 * math.log10(energy / max(noise, _TINY * energy))


def of_inputs(operation: Operation, x: Tensor, rounded: Tensor, text: Text) -> Reading:
    """Of inputs `x` fp32 [sequences, length, K] and what was made of them."""
    rows, seen = text.rows(x), text.rows(rounded)
    largest = rows.abs().amax(-1).clamp_min(_TINY)
    typical = rows.square().mean(-1).sqrt().clamp_min(_TINY)
    channels = rows.square().mean(0).sqrt()
    loudest = int(channels.argmax())
    first = torch.tensor([part.start for part in text.parts()])
    others = torch.ones(len(rows), dtype=torch.bool)
    others[first] = False
    rest = typical[others].median() if bool(others.any()) else typical.median()
    return Reading(
        operation,
        snr_db(rows, seen),
        headroom_bits=float((largest / typical).median().log2()),
        at_end=float((seen.abs() >= largest[:, None] * (1 - 1e-4)).float().mean()),
        outlier_channel=loudest,
        outlier_ratio=float(channels[loudest] / channels.median().clamp_min(_TINY)),
        first_token=float(typical[first].median() / rest.clamp_min(_TINY)),
    )


def of_weights(operation: Operation, x: Tensor, stored: Tensor, original: Tensor) -> Reading:
    """Of a linear that reads `x` fp32 [tokens, K]."""
    ends = stored.abs().amax(1, keepdim=True)
    return Reading(
        operation,
        snr_db(F.linear(x, original), F.linear(x, stored)),
        clipped=float((original.abs() > ends).float().mean()),
    )


def of_cache(
    operation: Operation,
    body: Attention,
    heads: Mapping[str, Tensor],
    rounded: Mapping[str, Tensor],
    text: Text,
) -> Reading:
    """Of queries, keys and values "q", "k", "v" [sequences, heads, length, head_dim]."""
    worst = min(snr_db(heads[one], rounded[one]) for one in ("q", "k", "v"))
    q, k = heads["q"], heads["k"]
    scores = (q @ k.transpose(-1, -2)) * body.scale
    length = q.shape[-2]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    first = scores.masked_fill(~causal, -torch.inf).softmax(-1)[..., 0].mean(1)  # [sequences, length]
    rows = text.rows(first)
    later = torch.ones(len(rows), dtype=torch.bool)
    for part in text.parts():
        later[part.start] = False
    return Reading(operation, worst, sink=float(rows[later].mean()) if bool(later.any()) else None)
