"""The programs in examples/ run as they are."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
Run = Callable[..., Any]


def example(name: str, *arguments: object) -> str:
    """What an example prints."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def test_quantize(checkpoint: Path, tmp_path: Path) -> None:
    bits, size = example("quantize.py", checkpoint, tmp_path / "made", 5).split(" bits a weight, ")
    assert float(bits) <= 5
    assert size.endswith("MB\n")
    assert (tmp_path / "made" / "model.safetensors").is_file()


def test_generate(artifact: Path) -> None:
    first, second = example("generate.py", artifact), example("generate.py", artifact)
    assert first == second
    assert len(first.splitlines()) >= 2


def test_openai_client(serving: Run) -> None:
    with serving() as served:
        assert example("openai_client.py", f"{served.ready['url']}/v1").strip()


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_every_example_says_how_to_run_it(name: str) -> None:
    assert f"python examples/{name}" in (EXAMPLES / name).read_text().splitlines()[0]
