"""The package huggingface_hub, which does the work between this program and the Hub; it is an extra."""

import logging
import sys
from pathlib import Path
from types import ModuleType

from rockledge.errors import CheckpointError
from rockledge.pip_command import pip_install
from rockledge.places import expanded


def hub_package(name: str) -> ModuleType:
    """huggingface_hub, for the model `name`; CheckpointError says how to install it where it is missing."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise CheckpointError(
            f"{name} is not a local path, and the Hub needs the package huggingface_hub (the extra hub); "
            f"run: {pip_install('huggingface_hub')}"
        ) from error
    return huggingface_hub


def show_bars(hub: ModuleType) -> None:
    """Lets the package draw its bars where somebody watches, and notes are not unwanted (`--quiet`)."""
    watched = sys.stderr.isatty() and logging.getLogger("rockledge").isEnabledFor(logging.INFO)
    (hub.utils.enable_progress_bars if watched else hub.utils.disable_progress_bars)()


def repository(hub: ModuleType, hub_id: str) -> Path:
    """Where the package keeps a model repository in its cache."""
    return expanded(hub.constants.HF_HUB_CACHE) / f"models--{hub_id.replace('/', '--')}"
