"""The steps of the pipeline that a recipe can choose or leave out, one line each.

The default is the most accurate at a bearable time; the other choices show what each step gains (`python -m
bench.ablation`), and save time.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from rockledge.errors import UsageError

# The values that a line may have; a line that is not here is true or false.
_CHOICES = {
    "rotate": ("hadamard", "none"),
    "channel_order": ("price", "stored"),
    "tables": ("learned", "normal"),
    "rounding": ("gptq", "nearest"),
    "moments": ("full", "diagonal"),
    "scale_tries": (1, 2, 3, 5),
    "token_weights": ("gradient", "equal"),
    "planes": ("price", "one"),
}
# Lines that matter only after the prices are known: runs that differ in them share a work directory.
_AFTER_PRICES = ("planes",)
_REFINE = "8 steps lowered KL by 1.3 %, less than another seed moves it, for half as much time again"
# What recipes of earlier versions may contain, and why it was removed (docs/log.md, 2026-11-24); None where
# the line leaves out what is gone.
_REMOVED: Mapping[str, Mapping[Any, str | None]] = {
    "rotate": {"learned": "it raised KL by 0.7 % at 3.5 bits and by 1.9 % at 4.25"},
    "refine": {0: None, **dict.fromkeys((4, 8, 12, 16, 24, 32), _REFINE)},
}


@dataclass(frozen=True)
class Steps:
    """`rotate`: the residual stream and every head's values, by Hadamard transforms folded into the weights.
    `down_hadamard`: the input of down, online. `balance`: channels between Q and K, V and O,
    up and down.
    `channel_order`: of the feed-forward, by price or as stored.
    `tables`: learned where the weights are not normal, or those of normal weights everywhere. `clip`: row
    scales that cut off large weights where the error shrinks. `rounding`: with error feedback, or to the
    nearest. `activation_order`: feedback starts with the largest inputs. `scale_tries`: row scales that
    feedback tries below eight bits, if `clip`. `moments`: second moments of inputs, whole, or the diagonal
    that rounding to the nearest can do with. `token_weights`: what a token counts in them, by the
    gradient behind it or all the same. `planes`: two int8 planes for inputs by price, or one for all.

    UsageError for a choice that does not exist.
    """

    rotate: str = "hadamard"
    down_hadamard: bool = True
    balance: bool = True
    channel_order: str = "price"
    tables: str = "learned"
    clip: bool = True
    rounding: str = "gptq"
    activation_order: bool = True
    scale_tries: int = 3
    moments: str = "full"
    token_weights: str = "gradient"
    planes: str = "price"

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            allowed = _CHOICES.get(name, (True, False))
            if value not in allowed:
                raise UsageError(
                    f"the step {name} cannot be {value!r}; choose {' or '.join(str(one) for one in allowed)}"
                )
        if self.rounding == "gptq" and self.moments != "full":
            raise UsageError("the step rounding: gptq needs moments: full; take rounding: nearest")

    def before_prices(self) -> dict[str, Any]:
        """The lines that candidates and prices depend on."""
        return {name: value for name, value in asdict(self).items() if name not in _AFTER_PRICES}


FAST = Steps(rounding="nearest", moments="diagonal")
"""A fraction of the time: nothing that takes products of inputs x inputs."""


def read_steps(lines: Mapping[str, Any]) -> Steps:
    """The steps of a recipe's `steps:`; what is not named has its default.

    UsageError for unknown names, and for steps that an earlier version had and this one has not.
    """
    lines = {name: value for name, value in lines.items() if not _left_out(name, value)}
    known = [field.name for field in fields(Steps)]
    if unknown := [name for name in lines if name not in known]:
        raise UsageError(f"a recipe has no step {unknown[0]!r}; the steps are {', '.join(known)}")
    return Steps(**lines)


def _left_out(name: str, value: Any) -> bool:
    """Whether a line leaves out a removed step, as recipes of earlier versions do; UsageError where it asks
    for one."""
    choices = _REMOVED.get(name, {})
    if value not in choices:
        return False
    if why := choices[value]:
        raise UsageError(
            f"the recipe asks for {name}: {value}, a step that was removed because {why}; leave the line out"
        )
    return True
