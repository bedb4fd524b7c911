"""What one run of `prune` is asked for, from flags or from the `prune` section of a recipe."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from rockledge.errors import UsageError, did_you_mean
from rockledge.pruning.shape import AXES
from rockledge.pruning.targets import By
from rockledge.recipe_file import read_recipe_file
from rockledge.units import read_count

DEFAULT_TOKENS: Final = 16384
LENGTH: Final = 512
"""Tokens of a calibration sequence, or the model's context where that is shorter."""


@dataclass(frozen=True)
class PruneRequest:
    """`sizes`: fixed ones by axis (`shape.AXES`). `target_params`, `body` (a share of the teacher's layers)
    and `fit` (a board, with `decode_tok_s` at least) are targets for the rest; without one, axes that are not
    fixed stay. `calibration`: a file, None for the built-in mix, of which `tokens` are used."""

    target_params: int | None = None
    body: float | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    kv_heads: int | None = None
    by: By | None = None
    fit: str | None = None
    decode_tok_s: float | None = None
    calibration: Path | None = None
    tokens: int = DEFAULT_TOKENS
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.targeted and not self.sizes and self.kv_heads is None:
            raise UsageError(
                "there is nothing to prune to; give --target-params, --body, --fit, or sizes such as --layers"
            )
        if sum(one is not None for one in (self.target_params, self.body, self.fit)) > 1:
            raise UsageError("--target-params, --body and --fit are each a target; give one of them")
        if self.decode_tok_s is not None and self.fit is None:
            raise UsageError("--decode-tok-s is a speed on a board; name the board with --fit")
        if self.by is not None and not self.targeted:
            raise UsageError("--by chooses between shapes for a target; give one, such as --target-params")

    @property
    def targeted(self) -> bool:
        """Whether shapes are chosen for a target, and not all sizes given."""
        return any(one is not None for one in (self.target_params, self.body, self.fit))


_NUMBERS: Final = ("kv_heads", "tokens", "seed", *AXES)
_KEYS: Final = (*(f.name for f in fields(PruneRequest) if f.name != "sizes"), *AXES)


def request_of(settings: Mapping[str, Any], place: str = "the settings") -> PruneRequest:
    """The request in `settings`: keys are those of the flags, with underscores; None counts as left out.
    UsageError names a key that is not known, or that holds something else; `place` says where they are
    from."""
    given = {key: value for key, value in settings.items() if value is not None}
    for key in given:
        if key not in _KEYS:
            raise UsageError(f"{place} has {key!r}, which prune does not know{did_you_mean(str(key), _KEYS)}")
    for key in _NUMBERS:
        if key in given and (
            isinstance(given[key], bool) or not isinstance(given[key], int) or given[key] < 0
        ):
            raise UsageError(f"{key} in {place} is {str(given[key])[:40]!r}, expected a whole number")
    if not given.get("tokens", 1):
        raise UsageError(f"tokens in {place} is 0, expected at least 1")
    count = given.get("target_params")
    if isinstance(count, str):
        count = read_count(count)
    if "target_params" in given and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise UsageError(
            f"target_params in {place} is {given['target_params']!r}, expected a number such as 3.5b or 82m"
        )
    if given.get("by") not in (None, "depth", "width", "both"):
        raise UsageError(f"by in {place} is {given['by']!r}, expected depth, width or both")
    speed = given.get("decode_tok_s")
    if speed is not None and (
        isinstance(speed, bool) or not isinstance(speed, (int, float)) or not speed > 0
    ):
        raise UsageError(f"decode_tok_s in {place} is {speed!r}, expected a positive number")
    share = given.get("body")
    if share is not None and (isinstance(share, bool) or not isinstance(share, float) or not 0 < share < 1):
        raise UsageError(f"body in {place} is {share!r}, expected a share of the layers such as 0.6")
    if not isinstance(given.get("calibration", ""), (str, Path)) or not isinstance(given.get("fit", ""), str):
        raise UsageError(f"calibration or fit in {place} is not a text, expected a file and a board's name")
    text = given.get("calibration")
    return PruneRequest(
        target_params=count,
        sizes={axis: given[axis] for axis in AXES if axis in given},
        calibration=None if text is None else Path(text),
        **{
            key: given[key]
            for key in ("kv_heads", "body", "by", "fit", "decode_tok_s", "tokens", "seed")
            if key in given
        },
    )


def recipe_settings(path: str | Path) -> tuple[str | None, dict[str, Any]]:
    """The `teacher` of a recipe, and its `prune` section. UsageError says what is wrong with the file."""
    recipe = read_recipe_file(path)
    section = dict(recipe.sections.get("prune", {}))
    if not section:
        raise UsageError(f"{path} has no section 'prune'; take a recipe that prunes, or leave out --recipe")
    return recipe.teacher, section
