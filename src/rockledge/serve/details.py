"""What is said of a model besides its name: size, family, age."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

from rockledge.artifact import Artifact
from rockledge.artifact.layout import TENSORS

_EPOCH = datetime.fromtimestamp(0, timezone.utc)


@dataclass(frozen=True)
class Details:
    """`parameters`: of the checkpoint; `bits_per_weight`: over everything; `bytes`: of the file of tensors;
    `modified`: when that was written, aware; `digest`: hexadecimal SHA-256, which stands for all of it."""

    family: str = ""
    parameters: int = 0
    bits_per_weight: float = 0.0
    bytes: int = 0
    modified: datetime = _EPOCH
    digest: str = ""

    @classmethod
    def of(cls, artifact: Artifact) -> Details:
        """Those of an artifact."""
        found = (artifact.path / TENSORS).stat()
        return cls(
            family=artifact.config.family,
            parameters=artifact.parameters,
            bits_per_weight=artifact.bits_per_weight,
            bytes=found.st_size,
            modified=datetime.fromtimestamp(found.st_mtime, timezone.utc),
            digest=artifact.digest,
        )


NO_DETAILS = Details()
