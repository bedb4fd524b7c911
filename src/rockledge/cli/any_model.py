"""The artifact of whatever model a command is given: a checkpoint is converted first, into a cache."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rockledge.cli.demo_model import cache_directory
from rockledge.cli.inspect import is_artifact
from rockledge.cli.sizes import parse_size
from rockledge.cli.terminal import Terminal

CACHE_LIMIT = "32G"
"""What converted models may take together, unless $ROCKLEDGE_CONVERTED_SIZE says otherwise."""

log = logging.getLogger(__name__)


@contextmanager
def artifact_of(model: str, *, quiet: bool) -> Iterator[Path]:
    """The artifact directory `model`, or that of the checkpoint `model` (file, directory or Hub id), which
    stays until the block is left. The log (stderr) says what is done, with a bar unless `quiet`.

    Raises CheckpointError, ArtifactError; UsageError for a limit that is not a size.
    """
    path = Path(model).expanduser()
    if path.is_dir() and is_artifact(path):
        yield path
        return
    from rockledge.conversion.cache import ConvertedModels
    from rockledge.conversion.convert import DEFAULT_BITS, convert
    from rockledge.model.checkpoint import find_checkpoint, open_checkpoint

    source = find_checkpoint(model)
    limit = parse_size(os.environ.get("ROCKLEDGE_CONVERTED_SIZE") or CACHE_LIMIT)

    def make(place: Path) -> None:
        checkpoint = open_checkpoint(source)
        for note in checkpoint.notes:
            log.info("Note: %s", note)
        log.info(
            "Converting %s at %g bits a weight, once, into %s. This rounds to the nearest; "
            "`rockledge quantize %s -o DIR` calibrates: more accurate, or much smaller.",
            model,
            DEFAULT_BITS,
            place.parent,
            model,
        )
        with Terminal(as_json=False, quiet=quiet).progress() as advance:
            # Not what was typed: that may hold a prompt, and the artifact outlives it.
            by_hand = shlex.join(["rockledge", "quantize", model, "--instant", "-o", place.name])
            convert(checkpoint, place, progress=advance, command=by_hand)

    def waiting() -> None:
        log.info("Another process is converting %s; waiting for it.", model)

    models = ConvertedModels(cache_directory() / "converted", limit)
    with models.model(source, None, make, waiting) as place:
        yield place
