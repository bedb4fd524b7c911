"""Reading one `config.json`: values with their types checked, and a record of which keys were asked for."""

from collections.abc import Collection, Mapping
from typing import Any

from rockledge.errors import CheckpointError

# Keys whose explicit null means something other than leaving them out: none, no sharing, derived.
_NULL_SPEAKS = frozenset(
    ["sliding_window", "num_key_value_heads", "head_dim", "final_logit_softcapping", "attn_logit_softcapping"]
)

_ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh"}


class HfValues:
    """The values of a `config.json`, or of an object in it that `place` names.

    What is absent has its value in `defaults`. `read` collects the keys that were asked for, `notes`
    sentences for the user. Every method raises CheckpointError that names the key and its value.
    """

    def __init__(
        self, stored: Mapping[str, Any], defaults: Mapping[str, Any], place: str = "config.json"
    ) -> None:
        self.stored, self.defaults, self.place = stored, defaults, place
        self._values = {**defaults, **{k: v for k, v in stored.items() if v is not None or k in _NULL_SPEAKS}}
        self.read: set[str] = set()
        self.notes: list[str] = []

    def get(self, key: str, default: Any = None) -> Any:
        """The value as it is; `default` where neither the file nor the family says anything."""
        self.read.add(key)
        value = self._values.get(key)
        return default if value is None else value

    def count(self, key: str, least: int = 1) -> int:
        """A whole number, at least `least`."""
        value = self.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.wrong(key, "a positive whole number" if least else "a whole number")
        return value

    def real(self, key: str, default: float | None = None) -> float:
        """A number."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e300:
            raise self.wrong(key, "a number")
        return float(value)

    def flag(self, key: str) -> bool:
        """True or false; false where nothing is said."""
        value = self.get(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def entries(self, key: str, kind: type, count: int) -> list[Any] | None:
        """A list with one entry of type `kind` for each of `count` layers; None where there is none."""
        value = self.get(key)
        if value is None:
            return None
        if (
            not isinstance(value, list)
            or len(value) != count
            or not all(isinstance(entry, kind) for entry in value)
        ):
            raise CheckpointError(
                f"{key} in {self.place} is not a list of {count} {_PLURAL[kind]}, one for each layer"
            )
        return value

    def choice(self, key: str, supported: Collection[object]) -> Any:
        """One of the supported values."""
        value = self.get(key)
        if not any(type(value) is type(one) and value == one for one in supported):
            raise self.wrong(key, " or ".join(str(one) for one in supported))
        return value

    def neutral(self, key: str, *values: object) -> None:
        """Refuses every value that does not say what is so anyway: one of `values`, or nothing at all."""
        value = self.get(key)
        if value is not None and value is not False and value not in values:
            raise self.wrong(key, " or ".join(str(one) for one in values) or "no such key, or false")

    def ignore(self, *keys: str) -> None:
        """Marks keys as known: the architecture does not use them, whatever they say."""
        self.read.update(keys)

    def activation(self, key: str = "hidden_act") -> str:
        """The field `activation`."""
        name = self.get(key)
        if not isinstance(name, str) or name not in _ACTIVATIONS:
            raise CheckpointError(
                f"{self.place} has the activation ({key}) {str(name)[:60]!r}, which is not supported; "
                f"expected {' or '.join(_ACTIVATIONS)}"
            )
        return _ACTIVATIONS[name]

    def wrong(self, key: str, expected: str) -> CheckpointError:
        """The error for a value that cannot be used."""
        return CheckpointError(
            f"{key} in {self.place} is {str(self._values.get(key))[:60]!r}, expected {expected}"
        )

    @property
    def layers(self) -> int:
        """Number of layers."""
        return self.count("num_hidden_layers")

    @property
    def hidden(self) -> int:
        """Width of the residual stream."""
        return self.count("hidden_size")

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        heads = self.count("num_attention_heads")
        return self.hidden // heads if self.get("head_dim") is None else self.count("head_dim")

    @property
    def context(self) -> int:
        """The longest sequence that the file speaks of."""
        return self.count("max_position_embeddings")


_PLURAL = {str: "names", int: "whole numbers"}
