"""The models that this program knows by name: converted, pulled from the Hub, made by `quantize`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rockledge import places
from rockledge.cli.inspect import is_artifact
from rockledge.cli.made_artifacts import remembered
from rockledge.cli.sizes import parse_size
from rockledge.disk_size import disk_size
from rockledge.errors import RockledgeError, UsageError

if TYPE_CHECKING:
    from rockledge.conversion.cache import ConvertedModels
    from rockledge.model.pulled import Pulled

CACHE_LIMIT = "32G"
"""What converted models may take together, unless $ROCKLEDGE_CONVERTED_SIZE says otherwise."""

CONVERTED, PULLED, MADE, DEMO = "converted", "pulled", "made", "demo"


@dataclass(frozen=True)
class KnownModel:
    """`size` in bytes on disk; `bits` a weight, None for checkpoints; `changed` and `used` in seconds of the
    epoch (`used` of conversions only); `source` is what a conversion was made of. `key` (of a conversion) and
    `record` (of a pulled model) say what to remove."""

    name: str
    kind: str
    path: Path
    size: int
    bits: float | None
    changed: float
    used: float | None = None
    source: Path | None = None
    key: str | None = None
    record: Pulled | None = None


def converted_models() -> ConvertedModels:
    """The cache of conversions. UsageError for a limit that is not a size."""
    from rockledge.conversion.cache import ConvertedModels

    limit = parse_size(os.environ.get("ROCKLEDGE_CONVERTED_SIZE") or CACHE_LIMIT)
    return ConvertedModels(places.converted_models(), limit)


def known_models() -> list[KnownModel]:
    """All of them, those of one kind together."""
    return [*_made(), *_pulled(), *_demo(), *_converted()]


def find_known(name: str) -> KnownModel | None:
    """The model that is called `name` or lies at that path, None where there is none. UsageError where
    several are called so."""
    known = known_models()
    place = places.expanded(name).absolute()
    found = [model for model in known if model.path.absolute() == place]
    found = found or [model for model in known if model.name == name]
    if len(found) > 1:
        paths = ", ".join(str(model.path) for model in found)
        raise UsageError(f"{len(found)} models are called {name}; name one by its path, of {paths}")
    return found[0] if found else None


def _made() -> list[KnownModel]:
    found = [(path, _bits(path)) for path in remembered() if path.is_dir()]
    return [
        KnownModel(path.name, MADE, path, disk_size(path), bits, path.stat().st_mtime)
        for path, bits in found
        if bits is not None
    ]


def _pulled() -> list[KnownModel]:
    from rockledge.model.pulled import PulledModels

    return [
        KnownModel(one.name, PULLED, one.path, one.size, _bits(one.path), when, record=one)
        for one, when in PulledModels(places.pulled_models()).whole()
    ]


def _demo() -> list[KnownModel]:
    from rockledge.cli.demo_model import demo_path

    path = demo_path()
    if not path.is_file():
        return []
    stat = path.stat()
    return [KnownModel(path.stem, DEMO, path, stat.st_size, None, stat.st_mtime)]


def _converted() -> list[KnownModel]:
    return [
        KnownModel(
            one.path.name,
            CONVERTED,
            one.path,
            one.size,
            _bits(one.path),
            one.made,
            one.used,
            one.source,
            one.key,
        )
        for one in converted_models().all()
    ]


def _bits(path: Path) -> float | None:
    """Bits a weight of an artifact; None for anything else."""
    from rockledge.artifact import open_artifact

    try:
        return open_artifact(path).bits_per_weight if path.is_dir() and is_artifact(path) else None
    except RockledgeError:
        return None
