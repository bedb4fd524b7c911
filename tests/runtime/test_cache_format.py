"""Pages that an earlier build left in a prefix directory hold other bits, and are not read."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rockledge.runtime import loading
from rockledge.runtime.engine import Engine


def test_pages_of_another_format_are_not_found(
    artifact_path: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = [(7 * i + 3) % 256 for i in range(100)]

    def found() -> int:
        """Tokens of the prompt that a fresh engine finds in the directory."""
        with Engine.load(
            artifact_path("rotated-tied"), threads=1, ctx=200, prefix_dir=tmp_path / "pages"
        ) as engine:
            list(engine.generate(prompt, max_tokens=1))
            return engine.stats().cached_tokens

    assert found() == 0
    assert found() == 96
    monkeypatch.setattr(loading, "CACHE_FORMAT", loading.CACHE_FORMAT - 1)
    assert found() == 0
