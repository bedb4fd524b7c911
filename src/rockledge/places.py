"""Where files lie that nobody gave a place: the cache, which may be removed at any time, the state, and keys.

Both follow the XDG Base Directory Specification 0.8, which ignores relative paths in its variables.
"""

import os
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """With the home directory in place of `~` or `~user` at its beginning; as it is where there is none, as a
    shell leaves it."""
    return Path(os.path.expanduser(path))


def cache() -> Path:
    """$ROCKLEDGE_CACHE, or `rockledge` in the user's cache directory."""
    if own := os.environ.get("ROCKLEDGE_CACHE"):
        return expanded(own)
    return _base("XDG_CACHE_HOME", "~/.cache") / "rockledge"


def converted_models() -> Path:
    """Artifacts that `run`, `chat` and `serve` made of checkpoints."""
    return cache() / "converted"


def pulled_models() -> Path:
    """Which models came from the Hub; their files lie in the cache of huggingface_hub."""
    return cache() / "pulled"


def demo_models() -> Path:
    """The model of the demo."""
    return cache() / "models"


def state() -> Path:
    """`rockledge` in the user's state directory."""
    return _base("XDG_STATE_HOME", "~/.local/state") / "rockledge"


def chat_history() -> Path:
    """What was typed into `chat`."""
    return state() / "chat_history"


def api_keys() -> Path:
    """The keys that `keys` makes."""
    return _base("XDG_CONFIG_HOME", "~/.config") / "rockledge" / "keys.json"


def made_artifacts() -> Path:
    """The list of directories that `quantize` wrote."""
    return state() / "artifacts"


def _base(variable: str, otherwise: str) -> Path:
    given = os.environ.get(variable, "")
    return Path(given) if os.path.isabs(given) else expanded(otherwise)
