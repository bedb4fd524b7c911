"""Reading the metadata of one GGUF file: values with their types checked, and a record of which keys were
asked for."""

import math
from collections.abc import Collection, Mapping
from typing import Any

from rockledge.errors import CheckpointError


class GgufValues:
    """The architecture's metadata of one file; a list is accepted as one value where all layers agree.

    `tensors` are the names of the stored tensors. `read` collects the keys that were asked for, without the
    architecture's name. Every method raises CheckpointError that names file, key and value.
    """

    def __init__(
        self, file: str, architecture: str, metadata: Mapping[str, Any], tensors: Collection[str]
    ) -> None:
        self.file, self.architecture, self.metadata, self.tensors = file, architecture, metadata, tensors
        self.read: set[str] = set()

    def stored(self, key: str) -> Any:
        """The value as it is stored; None where there is none."""
        self.read.add(key)
        return self.metadata.get(f"{self.architecture}.{key}")

    def get(self, key: str, default: Any = None) -> Any:
        """One value for all layers where they agree."""
        value = self.stored(key)
        if value is None:
            return default
        if isinstance(value, list) and value and all(v == value[0] for v in value):
            return value[0]
        return value

    def count(self, key: str, default: int | None = None, least: int = 1) -> int:
        """A whole number, at least `least`."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.wrong(key, value, f"one{' positive' * (least > 0)} whole number for all layers")
        return value

    def real(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self.wrong(key, value, "a number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, value, "true or false")
        return value

    def ignore(self, *keys: str) -> None:
        """Marks keys as known: the architecture does not use them, whatever they say."""
        self.read.update(keys)

    def has(self, tensor: str) -> bool:
        """Whether the first layer, or the model, has a tensor of that name, such as "attn_q.bias"."""
        return f"blk.0.{tensor}" in self.tensors or tensor in self.tensors

    def wrong(self, key: str, value: object, expected: str) -> CheckpointError:
        """The error for a value that cannot be used."""
        return CheckpointError(
            f"{self.file}: {self.architecture}.{key} is {str(value)[:60]}, expected {expected}"
        )

    @property
    def layers(self) -> int:
        """Number of layers."""
        return self.count("block_count")

    @property
    def hidden(self) -> int:
        """Width of the residual stream."""
        return self.count("embedding_length")

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        return self.count("attention.key_length", self.hidden // self.count("attention.head_count"))

    @property
    def context(self) -> int:
        """The longest sequence that the file speaks of."""
        return self.count("context_length")
