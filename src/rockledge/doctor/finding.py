"""What a check says: where, why in words, what mends it, and how much of the divergence it explains."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rockledge.formats.hadamard import Rotation

Severity = Literal["alarm", "advice", "remark"]
"""Something is broken; a change of recipe would gain something; worth knowing."""


@dataclass(frozen=True)
class NewFiles:
    """Small files of the artifact are replaced, None: removed."""

    files: Mapping[str, bytes | None]


@dataclass(frozen=True)
class NewSettings:
    """Fields of the `ModelConfig` get other values."""

    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Requantised:
    """Linears are rounded again from the reference, with so many bits each; None: with those they have."""

    linears: tuple[str, ...]
    bits: int | None = None


@dataclass(frozen=True)
class TwoPlanes:
    """The input that these linears share is rounded to two int8 planes."""

    linears: tuple[str, ...]


@dataclass(frozen=True)
class NewTurns:
    """The description gets the rotation of the residual stream and the online Hadamards that the weights
    need."""

    rotation: Rotation | None
    online: Mapping[str, int]


Change = NewFiles | NewSettings | Requantised | TwoPlanes | NewTurns


@dataclass(frozen=True)
class Finding:
    """`check`: the check that found it. `place`: an operation ("layers.3.attn.k"), a file or a setting.
    `cause` and `mend` are sentences. `change`: what `--fix` does, None where a change of the artifact mends
    nothing. `explained`: the share of the divergence from the float model that is gone once this alone is put
    right, None where that was not measured; negative where errors happened to cancel.
    """

    check: str
    place: str
    severity: Severity
    cause: str
    mend: str
    change: Change | None = None
    explained: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "check": self.check,
            "place": self.place,
            "severity": self.severity,
            "cause": self.cause,
            "mend": self.mend,
            "can_fix": self.change is not None,
            "explained": self.explained,
            **({"details": dict(self.details)} if self.details else {}),
        }


_ORDER = {"alarm": 0, "advice": 1, "remark": 2}


def by_weight(finding: Finding) -> tuple[int, float]:
    """Key to sort findings: alarms first, then by the share of the divergence that they explain."""
    return _ORDER[finding.severity], -(finding.explained or 0.0)
