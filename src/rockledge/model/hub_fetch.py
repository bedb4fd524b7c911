"""Fetching a model from the Hugging Face Hub, once; afterwards it is found without a network."""

import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from rockledge import places
from rockledge.errors import CheckpointError, RockledgeError
from rockledge.model.hub import HubName, sizes_of, wanted_files
from rockledge.model.hub_errors import hub_error, offline
from rockledge.model.hub_package import hub_package, repository, show_bars
from rockledge.model.pulled import Pulled, PulledModels
from rockledge.units import show_size

log = logging.getLogger(__name__)


def fetch(name: HubName, *, update: bool = False) -> Path:
    """The directory or GGUF file of a model on the Hub, all of it.

    One that was fetched before is taken as it is, unless `update` asks whether the Hub has a newer one.
    Raises CheckpointError: there is no such model, the Hub cannot be reached, or the disk is full.
    """
    models = PulledModels(places.pulled_models())
    if not update and (path := fetched(name)):
        return path
    hub = hub_package(str(name))
    with _said(name), models.locked(str(name), waiting=lambda: _say_waiting(name)):
        if not update and (path := fetched(name)):  # by another process meanwhile
            return path
        try:
            model, needed = _described(hub, name)
        except Exception as error:
            if not update and offline(error) and (other := _of_others(hub, models, name)):
                return other
            raise
        missing = model.missing()
        if missing:
            _check_room(model, needed)
            log.info("Fetching %s (%s).", name, show_size(needed))
        models.begin(model)
        show_bars(hub)
        for file in missing:  # not snapshot_download: its threads finish their files even after Ctrl-C
            hub.hf_hub_download(name.id, file)
        if left := model.missing():
            raise CheckpointError(f"{name} did not arrive whole ({min(left)}); try again")
        models.finish(model)
    return model.path


def fetch_config(name: HubName) -> Path:
    """The config.json of a model on the Hub, without its weights. Raises CheckpointError as `fetch` does, and
    for a GGUF file, whose header comes with the whole of it."""
    if name.file is not None:
        raise CheckpointError(
            f"{name} is a GGUF file, whose header comes with all of it; run `rockledge pull {name}` first, "
            "or name the repository of the original weights"
        )
    hub = hub_package(str(name))
    with _said(name):
        show_bars(hub)
        return Path(hub.hf_hub_download(name.id, "config.json"))


def fetched(name: HubName) -> Path | None:
    """The model where it was fetched before, whole."""
    found = PulledModels(places.pulled_models()).find(str(name))
    return None if found is None else found.path


def forget(name: HubName) -> None:
    """Removes what was fetched of a model."""
    models = PulledModels(places.pulled_models())
    with models.locked(str(name)):
        if found := models.find(str(name)):
            models.remove(found)


def _described(hub: ModuleType, name: HubName) -> tuple[Pulled, int]:
    """What the Hub says that the model consists of now, and how many bytes of that are not here."""
    info = hub.HfApi().model_info(name.id, files_metadata=True)
    every = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    wanted = wanted_files(name, every)
    place = repository(hub, name.id)
    if not re.fullmatch("[0-9a-f]{7,64}", str(info.sha)):
        raise CheckpointError(f"{name} has no commit that the Hub names; try again later")
    model = Pulled(str(name), place / "snapshots" / str(info.sha), sizes_of(wanted, every), wanted.opened)
    # A file that did not change since another version is linked to the same blob, called by its digest.
    digests = {file.rfilename: str(getattr(file.lfs, "sha256", file.blob_id)) for file in info.siblings or ()}
    missing = model.missing()
    absent = [size for file, size in missing.items() if _size(place / "blobs" / digests[file]) != size]
    return model, sum(absent)


def _of_others(hub: ModuleType, models: PulledModels, name: HubName) -> Path | None:
    """What another program, such as transformers, has fetched of the model, where the Hub cannot be asked;
    None where there is nothing or only part of it."""
    if models.begun(str(name)) or any(repository(hub, name.id).glob("blobs/*.incomplete")):
        return None
    try:
        snapshot = Path(hub.snapshot_download(name.id, allow_patterns=["*.json"], local_files_only=True))
        files = [path.relative_to(snapshot).as_posix() for path in snapshot.glob("**/*") if path.is_file()]
        opened = wanted_files(name, files).opened
    except Exception:  # as many types as without `local_files_only`; the caller has the reason already
        return None
    return snapshot if opened is None else snapshot / opened


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _check_room(model: Pulled, needed: int) -> None:
    place = model.snapshot
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise CheckpointError(
            f"{model.name} needs {show_size(needed, enough=True)} more, {place} has {show_size(free)} free; "
            "free some (`rockledge clean`), or set HF_HUB_CACHE to a directory on another disk"
        )


@contextmanager
def _said(name: HubName) -> Iterator[None]:
    """Makes one sentence of whatever goes wrong."""
    try:
        yield
    except RockledgeError:
        raise
    except Exception as error:
        raise hub_error(error, str(name), "fetched") from error


def _say_waiting(name: HubName) -> None:
    log.info("Another process is fetching %s; waiting for it.", name)
