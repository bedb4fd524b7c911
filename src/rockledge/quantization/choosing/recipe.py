"""The recipe: everything needed to make an artifact again, and readable enough to be written by hand.

    version: 1
    model: SmolLM2-135M-Instruct.gguf
    seed: 0
    calibration: {text: built-in, sha256: ..., tokens: 12288}
    budget: {bits_per_weight: 4.25, board: null, milliseconds: null}
    steps: {rotate: hadamard, rounding: gptq, ...}
    widths:
      embed: 49152x4
      layers.0.attn.q: 64x8 512x4

`widths` lists the bands of a linear as rows x bits, first row first. `planes` names the linears whose
inputs take two int8 planes. Every line but the version may be left out: without widths a recipe says how to
choose them, and an artifact's recipe what was chosen.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rockledge.errors import UsageError
from rockledge.formats.bands import Band, check_bands
from rockledge.model.block import decoder
from rockledge.model.config import ModelConfig
from rockledge.quantization.steps import Steps, read_steps

VERSION = 1
BUILT_IN = "built-in"

Widths = Mapping[str, tuple[Band, ...]]


@dataclass(frozen=True)
class Recipe:
    """What was asked for and what was chosen. `calibration` is a path or "built-in", `tokens` of it were
    used (None: as many as usual); `bits_per_weight`, `board` and `milliseconds` are the budget (None:
    not limited so). Empty
    `widths` are to be chosen.
    """

    model: str
    seed: int
    calibration: str
    calibration_sha256: str
    tokens: int | None
    bits_per_weight: float | None
    board: str | None
    widths: Widths
    planes: Mapping[str, int] = field(default_factory=dict)
    steps: Steps = field(default_factory=Steps)
    milliseconds: float | None = None

    def text(self) -> str:
        """The recipe as YAML."""
        head = {
            "version": VERSION,
            "model": self.model,
            "seed": self.seed,
            "calibration": {
                "text": self.calibration,
                "sha256": self.calibration_sha256,
                "tokens": self.tokens,
            },
            "budget": {
                "bits_per_weight": self.bits_per_weight,
                "board": self.board,
                "milliseconds": self.milliseconds,
            },
            "steps": asdict(self.steps),
            "planes": {name: count for name, count in self.planes.items() if count != 1},
            "widths": {
                name: " ".join(f"{band.rows}x{band.bits}" for band in bands)
                for name, bands in self.widths.items()
            },
        }
        return str(yaml.safe_dump(head, sort_keys=False, width=1000))


def read_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file; UsageError says what is wrong with it."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"the recipe {path} cannot be read as YAML ({error}); correct it") from error
    if not isinstance(content, dict) or content.get("version") != VERSION:
        raise UsageError(f"{path} is not a recipe of version {VERSION}; take the recipe.yaml of an artifact")
    try:
        calibration, budget = content.get("calibration") or {}, content.get("budget") or {}
        widths = content.get("widths") or {}
        return Recipe(
            model=str(content.get("model", "")),
            seed=int(content.get("seed", 0)),
            calibration=str(calibration.get("text", BUILT_IN)),
            calibration_sha256=str(calibration.get("sha256", "")),
            tokens=_optional(calibration.get("tokens"), int),
            bits_per_weight=_optional(budget.get("bits_per_weight"), float),
            board=_optional(budget.get("board"), str),
            milliseconds=_optional(budget.get("milliseconds"), float),
            widths={str(name): _bands(str(name), bands) for name, bands in widths.items()},
            planes={str(name): int(count) for name, count in (content.get("planes") or {}).items()},
            steps=read_steps(content.get("steps") or {}),
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"the recipe {path} is malformed ({error!r}); correct it") from error


def check_recipe(recipe: Recipe, config: ModelConfig) -> None:
    """Raises UsageError unless the recipe's bands cover exactly the linears of this model."""
    linears = dict(decoder(config).linears())
    if odd := set(linears) ^ set(recipe.widths):
        raise UsageError(f"{min(odd)!r} is in the recipe or in the model only; take a recipe of this model")
    for name, bands in recipe.widths.items():
        try:
            check_bands(bands, linears[name].rows)
        except UsageError as error:
            raise UsageError(f"in the recipe, {name}: {error}") from error
    if unknown := set(recipe.planes) - set(linears):
        raise UsageError(f"the recipe gives planes to {min(unknown)!r}, which is not a linear of this model")


def _bands(name: str, text: Any) -> tuple[Band, ...]:
    bands, start = [], 0
    for item in str(text).split():
        rows, _, bits = item.partition("x")
        if not (rows.isdecimal() and bits.isdecimal()):
            raise UsageError(
                f"in the recipe, {name} has the band {item!r}, expected rows x bits such as 64x8"
            )
        bands.append(Band(start, int(rows), int(bits)))
        start += int(rows)
    return tuple(bands)


def _optional(value: Any, kind: Any) -> Any:
    return None if value is None else kind(value)
