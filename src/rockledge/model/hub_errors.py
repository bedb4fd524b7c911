"""What went wrong between this program and the Hugging Face Hub, in one sentence.

The package huggingface_hub and the HTTP clients that it has had raise dozens of unrelated types, often one
from another, so they are told apart by name and by what caused them.
"""

import errno
import os
from collections.abc import Callable, Iterator

from rockledge.errors import CheckpointError

_NO_CONNECTION = (
    "ConnectError",
    "ConnectionError",
    "ConnectTimeout",
    "ReadTimeout",
    "ReadError",
    "RemoteProtocolError",
    "ProxyError",
    "Timeout",
    "OfflineModeIsEnabled",
)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
_TOKEN = "a token (in HF_TOKEN, or by `hf auth login`)"


def hub_error(error: BaseException, name: str, doing: str) -> CheckpointError:
    """What to raise for an `error` of huggingface_hub while it was `doing` ("fetched") the model `name`."""
    causes = list(_causes(error))
    for about in _ABOUT:
        for cause in causes:
            if sentence := about(cause, name, doing):
                return CheckpointError(sentence)
    lines = str(error).strip().splitlines()
    reason = lines[0][:200] if lines else type(error).__name__
    return CheckpointError(f"{name} could not be {doing} ({reason}); try again later")


def offline(error: BaseException) -> bool:
    """Whether the Hub was not reached at all."""
    return any(_kind(cause, *_NO_CONNECTION) for cause in _causes(error))


def not_found(error: BaseException) -> bool:
    """Whether the Hub says that there is no such repository, or none that this user may see."""
    return _kind(error, "RepositoryNotFoundError") and not _kind(error, "GatedRepoError")


def _gated(error: BaseException, name: str, doing: str) -> str | None:
    if not _kind(error, "GatedRepoError"):
        return None
    page = f"{_endpoint()}/{name.split(':')[0]}"
    return f"{name} is gated; accept its terms at {page}, and give {_TOKEN}"


def _unknown(error: BaseException, name: str, doing: str) -> str | None:
    if not not_found(error):
        return None
    return (
        f"{name} is neither here nor on the Hub at {_endpoint()}, or it is private; check the name, or give "
        f"{_TOKEN}"
    )


def _refused(error: BaseException, name: str, doing: str) -> str | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status not in (401, 403):
        return None
    return f"{name} could not be {doing}: the Hub refuses what this user may do; give {_TOKEN} that allows it"


def _full(error: BaseException, name: str, doing: str) -> str | None:
    if getattr(error, "errno", None) not in _FULL:
        return None
    return (
        f"no space is left to have {name} {doing}; free some (`rockledge clean`), or set HF_HUB_CACHE and "
        "ROCKLEDGE_CACHE to directories on another disk"
    )


def _not_reached(error: BaseException, name: str, doing: str) -> str | None:
    if not _kind(error, *_NO_CONNECTION):
        return None
    asked = "HF_HUB_OFFLINE is set" if _kind(error, "OfflineModeIsEnabled") else "no connection"
    return (
        f"{name} is not a local path and could not be {doing} ({asked}: {_endpoint()}); check the name and "
        "the network, or give a local path"
    )


def _not_the_hub(error: BaseException, name: str, doing: str) -> str | None:
    """The package trusts what it is told: a login page or a proxy's in its place is an error of Python."""
    if not isinstance(error, ValueError | TypeError | AttributeError | KeyError | RecursionError):
        return None
    return (
        f"{name} could not be {doing}: what answers at {_endpoint()} is not the Hub (a login page?); "
        "check HF_ENDPOINT and the network"
    )


def _impossible(error: BaseException, name: str, doing: str) -> str | None:
    too_long = isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG
    if not (too_long or _kind(error, "HFValidationError")):
        return None
    return f"{name[:200]} is not a name that the Hub allows; check it"


def _not_written(error: BaseException, name: str, doing: str) -> str | None:
    if not isinstance(error, OSError) or error.errno not in _NOT_WRITABLE:
        return None
    return (
        f"{name} could not be {doing}: {error.filename} cannot be written; set HF_HUB_CACHE and "
        "ROCKLEDGE_CACHE to directories that can"
    )


# The most telling first.
_ABOUT: tuple[Callable[[BaseException, str, str], str | None], ...] = (
    _full,
    _gated,
    _unknown,
    _refused,
    _impossible,
    _not_written,
    _not_reached,
    _not_the_hub,
)


def _kind(error: BaseException, *names: str) -> bool:
    return any(kind.__name__ in names for kind in type(error).__mro__)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on; the one that it was raised while handling counts too."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__ or at.__context__


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
