"""`rockledge clean`: frees disk space that costs nothing but time to fill again."""

from __future__ import annotations

import argparse
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rockledge import places
from rockledge.cli.command import Command
from rockledge.cli.confirm import add_yes_argument, confirmed
from rockledge.cli.engine_options import whole
from rockledge.cli.known_models import converted_models
from rockledge.cli.made_artifacts import remembered
from rockledge.cli.sizes import megabytes
from rockledge.cli.terminal import Terminal
from rockledge.disk_size import disk_size
from rockledge.units import show_size

UNUSED_DAYS = 30
_DAY = 86400.0
_DOWNLOAD_HOURS = 1.0  # a folder of the demo's download that nothing was written to for so long is abandoned


@dataclass(frozen=True)
class Waste:
    """Something to remove: what it is, for people, its bytes, and how; that returns the bytes freed, None
    where another process uses it."""

    what: str
    size: int
    remove: Callable[[], int | None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How much to remove."""
    parser.add_argument("--all", action="store_true", help="remove every conversion, however recently used")
    parser.add_argument(
        "--days",
        type=whole(0),
        default=UNUSED_DAYS,
        metavar="N",
        help="remove conversions that were not used for so long",
    )
    add_yes_argument(parser)


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Removes what stopped runs left, and conversions; models pulled or made stay (`rockledge rm`)."""
    found = [
        *_half_made(),
        *_left_by_writers(),
        *_downloads(),
        *_conversions(None if args.all else args.days),
    ]
    for waste in found:
        terminal.note(f"{waste.what}, {show_size(waste.size)}")
    if not found:
        terminal.print("There is nothing to remove.")
    elif not confirmed(f"remove these, {show_size(sum(waste.size for waste in found))}", args):
        terminal.print("Nothing was removed.")
        found = []
    removed = {}
    for waste in found:
        freed = waste.remove()
        if freed is None:
            terminal.note(f"{waste.what} is in use by another process and stays")
        else:
            removed[waste.what] = freed
    total = sum(removed.values())
    if found:
        terminal.print(f"{show_size(total)} are free.")
    return {"removed": list(removed), "freed_mb": megabytes(total)}


def _half_made() -> list[Waste]:
    """Conversions and models from the Hub that were never finished."""
    from rockledge.model.pulled import Pulled, PulledModels

    models, pulled = converted_models(), PulledModels(places.pulled_models())

    def remove_pulled(one: Pulled) -> int | None:
        with pulled.locked(one.name, wait=False) as mine:
            return pulled.remove(one) if mine else None

    return [
        *(
            Waste(f"half-made conversion {key}", models.size(key), partial(models.remove, key))
            for key in models.half_made()
        ),
        *(
            Waste(f"half-fetched {one.name}", pulled.on_disk(one), partial(remove_pulled, one))
            for one in pulled.half_made()
        ),
        *(
            Waste(f"half-fetched {path}", path.stat().st_size, partial(_remove, path))
            for path in pulled.stale_parts()
        ),
    ]


def _left_by_writers() -> list[Waste]:
    """What killed runs of `quantize` left beside their artifacts."""
    from rockledge.artifact.publish import abandoned
    from rockledge.quantization.work.abandoned import abandoned_work

    found = [path for made in remembered() for path in (*abandoned(made), *abandoned_work(made))]
    return [Waste(f"half-made {path}", disk_size(path), partial(_remove, path)) for path in found]


def _downloads() -> list[Waste]:
    """Folders of the demo's download."""
    before = time.time() - _DOWNLOAD_HOURS * 3600
    folders = [path for path in places.demo_models().glob("tmp*") if path.is_dir()]
    old = [path for path in folders if max(p.stat().st_mtime for p in (path, *path.glob("**/*"))) < before]
    return [Waste(f"half-fetched {path}", disk_size(path), partial(_remove, path)) for path in old]


def _conversions(days: int | None) -> list[Waste]:
    """Conversions that were not used for so many days (None: all, whatever the clock says), and the least
    recently used beyond the limit."""
    models, before = converted_models(), math.inf if days is None else time.time() - days * _DAY
    found, total = [], 0
    for one in models.all():
        total += one.size
        if one.used <= before or total > models.limit:
            what = f"conversion {one.path}"
            found.append(Waste(what, one.size, partial(models.remove, one.key)))
    return found


def _remove(path: Path) -> int:
    size = disk_size(path)
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return size - disk_size(path)


COMMAND = Command("clean", "remove half-made files and unused conversions", add_arguments, run)
