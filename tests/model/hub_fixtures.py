"""The stand-in of the Hub as a fixture: huggingface_hub asks it, and keeps files in a cache of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from tests.model.hub_stand_in import Hub, hub_stand_in


def use_hub(url: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sends huggingface_hub to `url`, and all that is kept to `place`."""
    monkeypatch.setenv("ROCKLEDGE_CACHE", str(place / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(place / "state"))
    monkeypatch.setenv("HF_ENDPOINT", url)
    monkeypatch.setenv("HF_HUB_CACHE", str(place / "hub"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    # The package reads its variables when it is imported.
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(place / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(place / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running stand-in, empty."""
    with hub_stand_in() as running:
        use_hub(running.url, tmp_path, monkeypatch)
        yield running
