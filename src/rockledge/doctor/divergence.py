"""How far two models' logits are apart, on the tokens of a text."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rockledge.doctor.text import Text

_ROWS = 64  # tokens whose probabilities exist at a time


def log_probabilities(logits: Tensor) -> Tensor:
    """float64 [tokens, vocab] of logits fp32 [tokens, vocab]."""
    return torch.log_softmax(logits.double(), -1)


def divergences(expected: Tensor, found: Tensor) -> Tensor:
    """KL(expected || found), nats, float64 [tokens], of logits fp32 [tokens, vocab]. Not finite where `found`
    is not."""
    parts = zip(expected.split(_ROWS), found.split(_ROWS), strict=True)
    return torch.cat([divergences_from(log_probabilities(one), other) for one, other in parts])


def divergences_from(log_p: Tensor, found: Tensor) -> Tensor:
    """The same from the `log_probabilities` of what is expected."""
    away = log_p - log_probabilities(found)
    return (log_p.exp() * away).sum(-1).clamp_min(0)


@dataclass(frozen=True)
class Agreement:
    """One model beside another on the same text. `first_divergence`: by sequence, the first place of the
    answer (0: right after the prompt) where the most likely token is another one, None where there is none.
    """

    kl_mean_nats: float
    kl_max_nats: float
    top1_agreement: float
    first_divergence: tuple[int | None, ...]
    identical: bool


def agreement(expected: Tensor, found: Tensor, text: Text) -> Agreement:
    """`found` beside `expected`, logits fp32 [tokens, vocab] of `text`."""
    kl = divergences(expected, found)
    other = expected.argmax(-1) != found.argmax(-1)
    first = []
    for part, prompt in zip(text.parts(), text.prompts, strict=True):
        # The last token of a prompt gives the first one of its answer; nothing follows an answer's last.
        at = torch.nonzero(other[part][prompt - 1 : -1]) if len(other[part]) > prompt else torch.empty(0, 1)
        first.append(int(at[0]) if len(at) else None)
    return Agreement(
        kl_mean_nats=float(kl.mean()),
        kl_max_nats=float(kl.max()),
        top1_agreement=float((~other).double().mean()),
        first_divergence=tuple(first),
        identical=torch.equal(expected, found),
    )
