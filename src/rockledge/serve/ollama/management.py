"""What clients ask of Ollama to change which models there are. Here that is decided where the server runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from rockledge.serve.errors import ApiError
from rockledge.serve.ollama.bodies import OllamaBody
from rockledge.serve.ollama.names import find_model
from rockledge.serve.residency.models import Models
from rockledge.serve.schema import Reading, flag, read_body
from rockledge.serve.served_model import ServedModel

PULLED = ("pulling manifest", "verifying sha256 digest", "writing manifest", "success")
"""What `/api/pull` says of a model that is there already."""


class PullBody(OllamaBody):
    """The body of `/api/pull`."""

    stream: Annotated[bool, flag()] = True
    insecure: Annotated[bool, flag()] = False


def read_pull(model: ServedModel, body: object, reading: Reading) -> PullBody:
    """The body of a request for a model that is there.

    Raises:
        ApiError: 400 that names the field.
    """
    return read_body(PullBody, body, reading)


def find_pulled(models: Models, body: object) -> ServedModel:
    """The model that a body asks to be fetched.

    Raises:
        ApiError: 404 where it is not here; this server fetches none.
    """
    return find_model(models, body, "is not here, and this server fetches none; start it with that model too")


class NamedBody(OllamaBody):
    """The body of `/api/show`."""

    verbose: Annotated[bool, flag()] = False


@dataclass(frozen=True)
class Refused:
    """A request that is always refused, and what to do instead."""

    method: str
    path: str
    what: str
    instead: str

    def error(self) -> ApiError:
        """403: the server will not do it, whoever asks."""
        return ApiError(f"this server does not {self.what} models; {self.instead}", status=403)


_ON_THE_MACHINE = "where it runs"

REFUSED = (
    Refused("POST", "/api/create", "create", f"run 'rockledge quantize' {_ON_THE_MACHINE}"),
    Refused("POST", "/api/copy", "copy", "restart it with '--alias NAME' for another name"),
    Refused("DELETE", "/api/delete", "delete", f"run 'rockledge rm' {_ON_THE_MACHINE}"),
    Refused("POST", "/api/push", "push", f"run 'rockledge push' {_ON_THE_MACHINE}"),
    Refused("POST", "/api/blobs/{digest}", "take", f"run 'rockledge quantize' {_ON_THE_MACHINE}"),
)
