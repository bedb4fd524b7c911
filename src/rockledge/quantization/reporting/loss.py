"""What the loss of a compressed model is measured in: the divergence of its logits or, where it has no
language head, the distance of its embeddings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rockledge.model.config import ModelConfig


@dataclass(frozen=True)
class Loss:
    """`name` for people, and its keys in report.json: in `divergence`, then the
    sum of prices, the mean over that sum, and in the table of budgets."""

    name: str
    mean: str
    priced: str
    measured_over_priced: str
    predicted: str

    def shown(self, value: float) -> str:
        """A loss for people: cosines differ by too little for a fixed number of digits."""
        return f"{value:.4f}" if self is KL else f"{value:.2g}"


KL = Loss("KL", "kl_mean_nats", "kl_priced_nats", "kl_measured_over_priced", "kl_predicted_nats")
COSINE = Loss(
    "1 - cosine",
    "cosine_distance_mean",
    "cosine_distance_priced",
    "cosine_distance_measured_over_priced",
    "cosine_distance_predicted",
)

HEADLESS_NOTE = (
    "Without a language head, loss is 1 - cosine between the model's embeddings and the float model's, with "
    "every token taken as the last of its text; the prices of widths are of that too."
)


def loss_of(config: ModelConfig) -> Loss:
    """What the loss of this model is measured in."""
    return COSINE if config.headless else KL


def reported_loss(numbers: Mapping[str, Any]) -> Loss:
    """What the numbers of a report are in."""
    return COSINE if COSINE.mean in numbers["divergence"] else KL
