"""What a fact is: a number that never travels without its unit, its source and how far it can be trusted."""

from dataclasses import dataclass
from typing import Literal

Confidence = Literal["specified", "measured elsewhere", "derived", "assumed", "measured here"]
"""From best known to least for another board's owner: a data sheet or device tree; somebody's published
measurement; arithmetic on the two; our judgement. "measured here" replaces any of them on a real board."""


@dataclass(frozen=True)
class Fact:
    """One number about a board. `source` names a public document or project that a reader can look up."""

    value: float
    unit: str
    source: str
    confidence: Confidence
