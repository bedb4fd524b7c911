"""All that a request has to pass before a route sees it, in one place and in order."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastapi import FastAPI

from rockledge.serve.safety.authentication import Authentication
from rockledge.serve.safety.content_types import JsonOnly
from rockledge.serve.safety.framing import OneLength
from rockledge.serve.safety.hosts import Hosts, KnownHost
from rockledge.serve.safety.keys import Keys
from rockledge.serve.safety.origins import KnownOrigin, Origins


@dataclass(frozen=True)
class Safety:
    """Who may use a server; the default is this machine's programs. `keys` None: no key is asked for."""

    hosts: Hosts = field(default_factory=Hosts)
    origins: Origins = field(default_factory=Origins)
    keys: Keys | None = None


def protect(app: FastAPI, safety: Safety) -> None:
    """Puts the checks around the routes. What is added last is asked first; CORS comes before keys, because
    browsers ask without one whether they may send it."""
    app.add_middleware(JsonOnly)
    if safety.keys is not None:
        app.add_middleware(Authentication, keys=safety.keys)
    app.add_middleware(KnownOrigin, origins=safety.origins)
    app.add_middleware(KnownHost, hosts=safety.hosts)
    app.add_middleware(OneLength)
