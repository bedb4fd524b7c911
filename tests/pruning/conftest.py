"""One run of `prune` on a small teacher."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.pruning.teachers import letters

from rockledge.pruning import prune as pipeline
from rockledge.pruning.prune import PruneReport, prune
from rockledge.pruning.request import request_of

Pruned = Callable[..., tuple[Path, PruneReport]]


@pytest.fixture
def drawn() -> None:
    """For a test that wants pictures, which take most of the time."""


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without pictures but where they are asked for, and with one thread."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(pipeline, "pictures", lambda numbers: {})
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def pruned(tmp_path: Path) -> Pruned:
    """`pruned(teacher, layers=3)`: the directory that was made, and the report."""
    text = letters(tmp_path / "text.txt")

    def run(source: Path, **settings: Any) -> tuple[Path, PruneReport]:
        asked = request_of({"calibration": text, "tokens": 1024, **settings})
        out = tmp_path / "student"
        return out, prune(source, out, asked, force=True)

    return run
