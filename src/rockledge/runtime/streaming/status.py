"""What streaming weights from the disk comes to, for people, health and metrics."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class StreamStats:
    """`direct`: whether reads go past the page cache by themselves. Bytes: `kept` of the weights stay in
    memory, `streamed` are read in every step through a `ring`. Since loading: `bytes_read` through the ring,
    `kept_read` once to stay, `embedding_read` for rows of the embedding; and the seconds that steps waited
    for the disk."""

    direct: bool
    kept: int
    streamed: int
    ring: int
    bytes_read: int = 0
    kept_read: int = 0
    embedding_read: int = 0
    waited_seconds: float = 0.0

    def body(self) -> dict[str, Any]:
        """The keys of `--json` and of health."""
        return asdict(self)
