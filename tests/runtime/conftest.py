"""Artifacts written once a session, and engines over them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.runtime.artifacts import VARIANTS, write_artifact

from rockledge.runtime.engine import Engine


@pytest.fixture(scope="session")
def artifact_path(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of the random artifact of a variant."""
    root = tmp_path_factory.mktemp("artifacts")

    def path(variant: str) -> Path:
        place = root / variant
        return place if place.exists() else write_artifact(place, VARIANTS[variant])

    return path


@pytest.fixture
def engine(artifact_path: Callable[[str], Path]) -> Iterator[Engine]:
    """A small tied, rotated model with room for 200 tokens; no page may be held when the test ends."""
    with Engine.load(artifact_path("rotated-tied"), threads=1, ctx=200) as loaded:
        yield loaded
        assert loaded.free_pages == loaded.pages
