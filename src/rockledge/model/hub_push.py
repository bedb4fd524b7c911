"""Putting a directory on the Hugging Face Hub as one commit, and what must not be lost there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rockledge.errors import RockledgeError, UsageError
from rockledge.model.hub_errors import hub_error, not_found
from rockledge.model.hub_package import hub_package, show_bars

LIBRARY = "rockledge"
"""What a model card names as its library: it says that a repository is one of ours."""
_HUBS_OWN = ".gitattributes"


def push_files(
    name: str, files: Mapping[str, Path | bytes], message: str, *, private: bool, overwrite: bool
) -> str:
    """Makes `files` (paths in the repository, with what they hold) all that the model repository `name` has,
    and returns the address of the commit. The repository is made where it does not exist.

    Raises UsageError for a repository that holds something else, without `overwrite`, and for a public one
    with `private`; CheckpointError where the Hub cannot be reached or refuses.
    """
    hub = hub_package(name)
    api = hub.HfApi()
    show_bars(hub)
    try:
        there = _there(api, name)
        old: set[str] = set()
        if there is None:
            api.create_repo(name, private=private)
        else:
            old = {file.rfilename for file in there.siblings or ()}
            _check(name, there, private, overwrite)
        added = [
            hub.CommitOperationAdd(path, data if isinstance(data, bytes) else str(data))
            for path, data in files.items()
        ]
        for one in added:  # singly, because threads for several finish theirs even after Ctrl-C
            api.preupload_lfs_files(name, [one], free_memory=False)
        removed = [hub.CommitOperationDelete(path) for path in sorted(old - set(files) - {_HUBS_OWN})]
        return str(api.create_commit(name, [*added, *removed], commit_message=message).commit_url)
    except RockledgeError:
        raise
    except Exception as error:
        raise hub_error(error, name, "pushed") from error


def _there(api: Any, name: str) -> Any:
    """What the Hub says about the repository, None where there is none."""
    try:
        return api.model_info(name)
    except Exception as error:
        if not_found(error):
            return None
        raise


def _check(name: str, there: Any, private: bool, overwrite: bool) -> None:
    holds = {file.rfilename for file in there.siblings or ()}
    ours = LIBRARY in (there.library_name, *(there.tags or ()))
    if holds - {_HUBS_OWN} and not ours and not overwrite:
        raise UsageError(
            f"{name} exists on the Hub and was not made by rockledge push; add --overwrite to replace its "
            "files, or choose another name"
        )
    if private and there.private is False:
        raise UsageError(
            f"{name} exists on the Hub and is public; make it private in its settings, or leave out --private"
        )
