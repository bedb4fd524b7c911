"""The files of the page: a fixed table, read once, so that no address can name any other file."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Final

PAGE: Final = "page.html"

_SCRIPT: Final = "text/javascript; charset=utf-8"
_TYPES: Final = {
    PAGE: "text/html; charset=utf-8",
    "console.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "console.js": _SCRIPT,
    "chat.js": _SCRIPT,
    "elements.js": _SCRIPT,
    "examples.js": _SCRIPT,
    "markdown.js": _SCRIPT,
    "model.js": _SCRIPT,
    "monitor.js": _SCRIPT,
    "plot.js": _SCRIPT,
    "server.js": _SCRIPT,
    "settings.js": _SCRIPT,
    "theme.js": _SCRIPT,
}

ADDRESSES: Final[Mapping[str, str]] = MappingProxyType(
    {"/" if name == PAGE else f"/console/{name}": name for name in _TYPES}
)
"""Where each file is served. Anybody may have them: they hold nothing of this server or its users."""


def page_files() -> dict[str, tuple[bytes, str]]:
    """Address -> content and media type of every file."""
    folder = files(__package__)
    return {
        address: (folder.joinpath(name).read_bytes(), _TYPES[name]) for address, name in ADDRESSES.items()
    }
