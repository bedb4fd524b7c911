"""The steps of the pipeline that a recipe can choose or leave out, each one line of it.

The default is the most accurate at a bearable time; the other choices show what each step gains (`python -m
bench.ablation`), and save time.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from rockledge.errors import UsageError

# What a line may say; a line that is not here is true or false.
_CHOICES = {
    "rotate": ("hadamard", "learned", "none"),
    "channel_order": ("price", "stored"),
    "tables": ("learned", "normal"),
    "rounding": ("gptq", "nearest"),
    "moments": ("full", "diagonal"),
    "scale_tries": (1, 2, 3, 5),
    "token_weights": ("gradient", "equal"),
    "planes": ("price", "one"),
    "refine": (0, 4, 8, 12, 16, 24, 32),
}
# Lines that matter only after the prices are known: runs that differ in them share a work directory.
_AFTER_PRICES = ("planes", "refine")


@dataclass(frozen=True)
class Steps:
    """`rotate`: the residual stream and every head's values, by Hadamard transforms folded into the weights;
    learned, the stream's blocks are mixed so that peaks are low (`learn_rotation`).
    `down_hadamard`: the input of down, online. `balance`: channels between Q and K, V and O,
    up and down.
    `channel_order`: of the feed-forward, by price or as stored.
    `tables`: learned where the weights are not normal, or those of normal weights everywhere. `clip`: row
    scales that cut off large weights where the error shrinks. `rounding`: with error feedback, or to the
    nearest. `activation_order`: feedback starts with the largest inputs. `scale_tries`: row scales that
    feedback tries below eight bits, if `clip`. `moments`: second moments of inputs, whole, or the diagonal
    that rounding to the nearest can do with. `token_weights`: what a token counts in them, by the
    gradient behind it or all the same. `planes`: two int8 planes for inputs by price, or one for all.
    `refine`: gradient steps that every block's row scales take once the widths are chosen.

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
    refine: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            allowed = _CHOICES.get(name, (True, False))
            if value not in allowed:
                raise UsageError(
                    f"The step {name} cannot be {value!r}; choose {' or '.join(str(one) for one in allowed)}."
                )
        if self.rounding == "gptq" and self.moments != "full":
            raise UsageError("The step rounding: gptq needs moments: full; take rounding: nearest.")

    def before_prices(self) -> dict[str, Any]:
        """The lines that candidates and prices depend on."""
        return {name: value for name, value in asdict(self).items() if name not in _AFTER_PRICES}


FAST = Steps(rounding="nearest", moments="diagonal", refine=0)
"""A fraction of the time: nothing that takes products of inputs x inputs."""


def read_steps(lines: Mapping[str, Any]) -> Steps:
    """The steps of a recipe's `steps:`; what is not named is as usual. UsageError for unknown names."""
    known = [field.name for field in fields(Steps)]
    if unknown := [name for name in lines if name not in known]:
        raise UsageError(f"There is no step {unknown[0]!r} in a recipe; the steps are {', '.join(known)}.")
    return Steps(**lines)
