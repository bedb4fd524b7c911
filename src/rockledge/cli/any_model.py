"""The artifact of whatever model a command is given: a checkpoint is converted first, into a cache."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rockledge.cli.inspect import is_artifact
from rockledge.cli.known_models import converted_models, find_known, known_models
from rockledge.cli.terminal import Terminal
from rockledge.errors import ArtifactError, CheckpointError, did_you_mean
from rockledge.places import expanded

if TYPE_CHECKING:
    from rockledge.model.hub import HubName

log = logging.getLogger(__name__)


@contextmanager
def artifact_of(model: str, *, quiet: bool) -> Iterator[Path]:
    """The artifact directory `model`, or that of the checkpoint `model` (file, directory or Hub id), which
    stays until the block is left; or what `rockledge list` knows by that name. The log (stderr) says what is
    done, with a bar unless `quiet`.

    Raises CheckpointError, ArtifactError; UsageError for a limit that is not a size, or a name of two models.
    """
    path, key = _found(model)
    if key is not None:
        with converted_models().kept(key):
            yield path
        return
    if path.is_dir() and is_artifact(path):
        yield path
        return
    with _converted(path, model, quiet=quiet) as place:
        yield place


def model_path(model: str) -> Path:
    """Where the artifact or checkpoint `model` lies, which may be a path, a name that `rockledge list` shows,
    or a Hub id, which is fetched. CheckpointError if there is none."""
    return _found(model)[0]


def _found(model: str) -> tuple[Path, str | None]:
    """The path, and the key if it is a conversion."""
    from rockledge.model.checkpoint import find_checkpoint
    from rockledge.model.hub import hub_name

    path, name = expanded(model), hub_name(model)
    if path.exists():
        if name is not None:
            _say_local(path, name)
    elif name is None:
        if known := find_known(model):
            return known.path, known.key
        if hint := did_you_mean(model, [known.name for known in known_models()]):
            raise CheckpointError(f"{model} does not exist{hint}")
    return find_checkpoint(model), None


_ELSEWHERE = "$ROCKLEDGE_CACHE names another place, `rockledge clean --all` frees what is not in use"


@contextmanager
def _converted(source: Path, model: str, *, quiet: bool) -> Iterator[Path]:
    from rockledge.artifact.publish import UnwritableError
    from rockledge.conversion.convert import DEFAULT_BITS, convert
    from rockledge.model.checkpoint import model_at, open_checkpoint

    model_at(source)  # what is not a model is said before anything is looked up or written

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

    with ExitStack() as held:
        try:
            place = held.enter_context(converted_models().model(source, None, make, waiting))
        except UnwritableError as error:
            raise ArtifactError(f"{error} ({_ELSEWHERE})") from error
        yield place


def _say_local(path: Path, name: HubName) -> None:
    """Says that a path is taken where a model from the Hub, which is here too, has the same name."""
    from rockledge.model.hub_fetch import fetched

    if (other := fetched(name)) is not None:
        log.info("%s is a path here and is taken; the model of that name from the Hub is %s.", path, other)
