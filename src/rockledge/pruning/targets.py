"""A handful of shapes for one target: by depth, by width, or both.

The largest model of every profile that is allowed is taken: its axes shrink together until it is, and then
the feed-forward width, which has the finest step, grows or shrinks to land.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil, lcm
from typing import Final, Literal

from rockledge.errors import BudgetError, UsageError
from rockledge.model.block import decoder
from rockledge.model.config import ModelConfig
from rockledge.pruning.shape import (
    AXES,
    TILE,
    Shape,
    body_parameters,
    grain,
    head_counts,
    hidden_fits,
    hidden_step,
    kv_heads_for,
    pruned_config,
    shape_of,
)
from rockledge.units import show_count

Allowed = Callable[[ModelConfig], bool]
"""Whether a model of this configuration meets the target; true for smaller ones where it is for one."""
Size = Callable[[ModelConfig], int]
"""How large a model is, in what a target is about."""
By = Literal["depth", "width", "both"]

TOLERANCE: Final = 0.03
"""A shape for a number of parameters has at most as many, and at most this share fewer."""
_STEPS: Final = 256  # of a profile, from the teacher to almost nothing


@dataclass(frozen=True)
class Profile:
    """How fast each axis shrinks beside the others; an axis that is not named stays."""

    name: str
    by: By
    shares: Mapping[str, float]


PROFILES: Final = (
    Profile("layers", "depth", {"layers": 1.0}),
    Profile("feed-forward", "width", {"ffn": 1.0}),
    # Llama-3.1-8B to 4B: hidden 4096 to 3072, feed-forward 14336 to 9216, heads kept (arXiv 2408.11796).
    Profile("hidden and feed-forward", "width", {"hidden": 0.7, "ffn": 1.0}),
    Profile("hidden, feed-forward and heads", "width", {"hidden": 0.6, "ffn": 1.0, "heads": 0.6}),
    Profile("layers and feed-forward", "both", {"layers": 0.6, "ffn": 1.0}),
    Profile("all", "both", {"layers": 0.6, "hidden": 0.5, "ffn": 1.0, "heads": 0.5}),
)
"""The shapes that are tried. The feed-forward part shrinks most: it is what pruning costs least in (same
source)."""


@dataclass(frozen=True)
class Tried:
    """A shape and where it comes from."""

    name: str
    shape: Shape


def whole_size(config: ModelConfig) -> int:
    """All numbers of a checkpoint."""
    return decoder(config).parameters


@dataclass(frozen=True)
class Space:
    """The shapes that can be made of a teacher with `config`: with fixed `sizes` by axis, over so many
    `kv_heads`, by profiles of one kind only."""

    config: ModelConfig
    sizes: Mapping[str, int] = field(default_factory=dict)
    kv_heads: int | None = None
    by: By | None = None

    @cached_property
    def start(self) -> Shape:
        """The largest: the teacher's shape with the fixed sizes. UsageError for heads that cannot be cut."""
        config, heads = self.config, self.sizes.get("heads", self.config.heads)
        if "heads" not in self.sizes and self.kv_heads is not None:
            heads = self.kv_heads * (config.heads // config.kv_heads)
        found = replace(shape_of(config), **{axis: self.sizes[axis] for axis in AXES if axis in self.sizes})
        if heads == config.heads and self.kv_heads is None:
            return found
        return replace(found, heads=heads, kv_heads=kv_heads_for(config, heads, self.kv_heads))

    @property
    def fixed(self) -> frozenset[str]:
        """The axes that do not shrink."""
        return frozenset(self.sizes) | ({"heads"} if self.kv_heads is not None else set())

    @property
    def profiles(self) -> Iterator[tuple[str, dict[str, float]]]:
        """(name, shares of axes that are free) of every profile that changes anything."""
        for profile in PROFILES:
            shares = {axis: share for axis, share in profile.shares.items() if axis not in self.fixed}
            if shares and self.by in (None, profile.by):
                yield profile.name, shares


def shapes_for(space: Space, allowed: Allowed, size: Size = whole_size) -> list[Tried]:
    """The largest allowed shape of every profile by `size`, largest first; empty where even the smallest are
    too large."""
    found: dict[Shape, str] = {}
    for name, shares in space.profiles:
        if (shape := _largest(space, shares, allowed, size)) is not None:
            found.setdefault(shape, name)
    tried = [Tried(name, shape) for shape, name in found.items()]
    return sorted(tried, key=lambda one: -size(pruned_config(space.config, one.shape)))


@dataclass(frozen=True)
class Target:
    """At most `most` numbers, counted in a whole checkpoint, or in its `body`: without embedding and head."""

    most: int
    body: bool = False

    def count(self, config: ModelConfig) -> int:
        """The numbers that count in a model."""
        return body_parameters(config) if self.body else whole_size(config)

    def shown(self, count: int) -> str:
        """A count for people."""
        return f"{show_count(count)} parameters" + (" in its layers" if self.body else "")

    def flag(self, teacher: ModelConfig, count: int) -> str:
        """How a command asks for at most `count`."""
        if self.body:
            return f"--body {ceil(1e6 * count / body_parameters(teacher)) / 1e6:g}"
        return f"--target-params {count}"


def shapes_with(space: Space, target: Target) -> list[Tried]:
    """Shapes within the target, and at most `TOLERANCE` below it. BudgetError names the nearest that can be
    made."""

    def count(shape: Shape) -> int:
        return target.count(pruned_config(space.config, shape))

    whole, shown = count(space.start), target.shown
    if target.most >= whole:
        raise UsageError(
            f"the target is {shown(target.most)}, but there are only {show_count(whole)} to begin with; give "
            "a smaller target"
        )
    tried = shapes_for(space, lambda made: target.count(made) <= target.most, target.count)
    near = [one for one in tried if count(one.shape) >= (1 - TOLERANCE) * target.most]
    if near:
        return near
    if tried:
        best = max((one.shape for one in tried), key=count)
        raise BudgetError(
            f"no shape has {shown(target.most)} or up to {TOLERANCE:.0%} less; the nearest that has fewer "
            f"has {show_count(count(best))} ({best}): give {target.flag(space.config, count(best))}, or fix "
            "fewer sizes"
        )
    least = smallest(space, target.count)
    raise BudgetError(
        f"the target is {shown(target.most)}, but the smallest that can be made has "
        f"{show_count(count(least))} ({least}); give {target.flag(space.config, count(least))} or more, or "
        "begin with a smaller teacher"
    )


def smallest(space: Space, size: Size = whole_size) -> Shape:
    """The smallest shape by `size` that the profiles reach."""
    ends = [space.start]
    for _, shares in space.profiles:
        ends.append(_shrunk(space, shares, 1.0))
        if "ffn" not in space.fixed:
            ends.append(replace(ends[-1], ffn=min(grain(space.config.ffn), space.start.ffn)))
    return min(ends, key=lambda shape: size(pruned_config(space.config, shape)))


def _largest(space: Space, shares: Mapping[str, float], allowed: Allowed, size: Size) -> Shape | None:
    """The largest allowed shape of a profile: the first on its ladder, with the feed-forward part grown; or
    the one before it with that part shrunk, where the first is smaller by more than the tolerance."""

    def fits(shape: Shape) -> bool:
        return allowed(pruned_config(space.config, shape))

    rungs = (_shrunk(space, shares, step / _STEPS) for step in range(_STEPS + 1))
    ladder = [shape for shape in dict.fromkeys(rungs) if hidden_fits(space.config, shape)]
    # Shapes of a ladder shrink, so the first that is allowed is found by halving.
    low, high = 0, len(ladder)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(ladder[middle]) else (middle + 1, high)
    near = [*ladder[low : low + 1], *(ladder[low - 1 : low] if low else [])]
    if "ffn" not in space.fixed:
        found = [landed for rung in near if (landed := _landed(space, rung, fits)) is not None]
    else:
        found = ladder[low : low + 1]
    sizes = [size(pruned_config(space.config, shape)) for shape in found]
    return found[-1 if sizes[-1] > (1 + TOLERANCE) * sizes[0] else 0] if found else None


def _landed(space: Space, shape: Shape, fits: Callable[[Shape], bool]) -> Shape | None:
    """The same shape with the widest feed-forward part that is allowed."""
    most, step = space.start.ffn, grain(space.config.ffn)
    widths = [*range(step, most, step), most]
    low, high = 0, len(widths)
    while low < high:
        middle = (low + high) // 2
        if fits(replace(shape, ffn=widths[middle])):
            low = middle + 1
        else:
            high = middle
    return replace(shape, ffn=widths[low - 1]) if low else None


def _even_heads(config: ModelConfig) -> list[int]:
    """Numbers of query heads that leave all key/value heads, or all query heads of those that stay."""
    each = config.heads // config.kv_heads
    counts = head_counts(config).items()
    return [count for count, kv in counts if kv == config.kv_heads or count == kv * each]


def _shrunk(space: Space, shares: Mapping[str, float], by: float) -> Shape:
    """The largest shape with every axis of `shares` shrunk by its share of `by`, which is 0 to 1."""
    sizes, start = {}, space.start
    wanted = {axis: getattr(start, axis) * (1 - share * by) for axis, share in shares.items()}
    if "layers" in wanted:
        sizes["layers"] = max(1, round(wanted["layers"]))
    if "heads" in wanted:
        sizes["heads"] = min(_even_heads(space.config), key=lambda count: abs(count - wanted["heads"]))
        sizes["kv_heads"] = kv_heads_for(space.config, sizes["heads"])
    heads = sizes.get("heads", start.heads)
    for axis, along in (("hidden", hidden_step(space.config, heads)), ("ffn", 1)):
        if axis in wanted and along is None:
            sizes[axis] = heads * space.config.head_dim
        elif axis in wanted:
            whole = getattr(start, axis)
            step = _common_step(grain(whole), along or 1, whole)
            sizes[axis] = min(whole // step, max(1, round(wanted[axis] / step))) * step or whole
            if wanted[axis] > whole - step / 2 and whole % (along or 1) == 0:
                sizes[axis] = whole
    return replace(start, **sizes)


def _common_step(step: int, along: int, whole: int) -> int:
    """A common multiple of `along` and a power of two from `step` down to a tile: with the largest that
    leaves eight steps in `whole`, or with a tile."""
    while step > TILE and lcm(step, along) > whole // 8:
        step //= 2
    return lcm(step, along)
