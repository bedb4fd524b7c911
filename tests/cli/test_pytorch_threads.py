"""PyTorch's OpenMP library itself says how its threads wait."""

import os
import subprocess
import sys

import pytest

USER_SETTINGS = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}


def seen(code: str, **environment: str) -> str:
    """What the library prints when it is loaded, and what `code` prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**USER_SETTINGS, "OMP_DISPLAY_ENV": "TRUE", **environment},
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "from rockledge.cli.main import main; main(['quantize', 'missing', '-o', 'nowhere'])",
        (
            "from types import SimpleNamespace as Some; model = Some(config=Some(headless=False));"
            "from rockledge.cli.evaluate import compare; compare(model, model, '', None)"
        ),
    ],
)
def test_threads_of_the_commands_sleep(command: str) -> None:
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in seen(command)


def test_what_a_user_sets_stays() -> None:
    command = "from rockledge.cli.main import main; main(['quantize', 'missing', '-o', 'nowhere'])"
    assert "OMP_WAIT_POLICY = 'ACTIVE'" in seen(command, OMP_WAIT_POLICY="active")


def test_importing_changes_no_environment() -> None:
    code = (
        "import os; before = dict(os.environ); import rockledge.quantization.float_model.forward;"
        "print('same' if dict(os.environ) == before else 'changed')"
    )
    assert "same" in seen(code)
