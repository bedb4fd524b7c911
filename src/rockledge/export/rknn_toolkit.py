"""The vendor's toolkit, run in an environment of its own: one process, a folder with a job at a time.

The toolkit needs an older NumPy and protobuf than ours, and PyTorch besides; its licence is its vendor's.
Nothing of it is imported here, and nothing of it is shipped (docs/vendor.md).
"""

import json
import os
import re
import select
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Final

from rockledge.errors import RockledgeError, UsageError

VARIABLE: Final = "ROCKLEDGE_RKNN_PYTHON"
"""The environment variable that names the Python of the toolkit's environment."""

VERSION: Final = "2.5.0"
"""The version that was tried; others are refused, because their results are not known."""

SECONDS: Final = 1800.0
"""The longest that the toolkit may take for one operator: on some graphs it does not come to an end."""

_SCRIPT: Final = Path(__file__).with_name("rknn_script.py")
# By its text, so that no module beside it is found in place of the toolkit's.
_RUN: Final = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"
_ASKED: Final = "import importlib.metadata as m; print(m.version('rknn-toolkit2'))"
_HOW: Final = "docs/vendor.md says how to make its environment"


class ToolkitError(RockledgeError):
    """The toolkit could not do what it was asked to; the message has its own words."""


def find_toolkit(python: str | None) -> str:
    """The Python that has the toolkit: `python`, else what $ROCKLEDGE_RKNN_PYTHON names. UsageError where
    there is none, it has no toolkit, or one of another version."""
    found = python or os.environ.get(VARIABLE)
    if not found:
        raise UsageError(
            "rknn-toolkit2 is not part of Rockledge; name the Python of an environment that has it with "
            f"--rknn-python or {VARIABLE} ({_HOW})"
        )
    try:
        asked = subprocess.run(
            [found, "-c", _ASKED], capture_output=True, text=True, timeout=60, env=_environment(), check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"{found} cannot be run as a Python ({error}); {_HOW}") from error
    version = asked.stdout.strip()
    if asked.returncode or not version:
        raise UsageError(f"the Python {found} has no rknn-toolkit2, expected version {VERSION}; {_HOW}")
    if version != VERSION:
        raise UsageError(f"the Python {found} has rknn-toolkit2 {version}, expected {VERSION}; {_HOW}")
    return found


class Toolkit:
    """A running toolkit; `folder` is where it leaves its log and what it drops beside itself."""

    def __init__(self, python: str, folder: Path, seconds: float = SECONDS) -> None:
        self._log, self._seconds = folder / "toolkit.log", seconds
        self._done, write = os.pipe()
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [python, "-c", _RUN, str(_SCRIPT), str(write)],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=(write,),
                    cwd=folder,
                    env=_environment(),
                    start_new_session=True,
                    text=True,
                )
        except BaseException:
            os.close(self._done)
            raise
        finally:
            os.close(write)

    def __enter__(self) -> "Toolkit":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._input.close()
        if error is None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=30)
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._done)

    def do(self, folder: Path, what: str) -> None:
        """Does the job in `folder`; ToolkitError names `what` and says why it could not be done."""
        try:
            self._input.write(f"{folder}\n")
            self._input.flush()
        except OSError as error:
            raise self._ended(what) from error
        ready, _, _ = select.select([self._done], [], [], self._seconds)
        if not ready:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            raise ToolkitError(f"rknn-toolkit2 was not done with {what} after {self._seconds:.0f} s")
        if not os.read(self._done, 1):
            raise self._ended(what)
        refused = json.loads((folder / "result.json").read_text())["error"]
        if refused is not None:
            raise ToolkitError(f"rknn-toolkit2 refuses {what} ({_line(refused)})")

    @property
    def alive(self) -> bool:
        """Whether it can do another job."""
        return self._process.poll() is None

    @property
    def _input(self) -> IO[str]:
        assert self._process.stdin is not None
        return self._process.stdin

    def _ended(self, what: str) -> ToolkitError:
        code = self._process.wait()
        words = self._log.read_text(errors="replace")[-4000:].strip().splitlines()
        said = _line(words[-1]) if words else "it said nothing"
        return ToolkitError(f"rknn-toolkit2 ended while it made {what} (exit code {code}; {said})")


def _environment() -> dict[str, str]:
    """Ours, without what would lead the other Python to our packages."""
    left_out = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV")
    return {key: value for key, value in os.environ.items() if key not in left_out}


def _line(text: str) -> str:
    """One line for a message: without colours and control characters."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return " ".join("".join(c if c.isprintable() else " " for c in plain).split())[:300]
