"""The check of every byte of an artifact, in a thread of its own while the model already answers."""

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress

from rockledge.errors import ArtifactError, DiskError, RockledgeError

log = logging.getLogger(__name__)

_LEAST_PRIORITY = 19  # of nice; Linux keeps one for each thread


class _StoppedError(Exception):
    """Ends the check from inside its progress."""


class BackgroundCheck:
    """Runs `verify` (`Artifact.verify`) once. `state` is "unchecked", "checking", "verified" or "damaged",
    `failure` the sentence about damage. A disk that fails ends it as "unchecked"."""

    def __init__(self, verify: Callable[[Callable[[int], None]], None]) -> None:
        self._verify = verify
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="artifact check", daemon=True)
        self.failure: str | None = None
        self.state = "unchecked"

    def start(self) -> None:
        """Begins; the thread takes what time the others leave."""
        self.state = "checking"
        self._thread.start()

    def require(self) -> None:
        """Raises ArtifactError if damage has been found so far."""
        if self.failure is not None:
            raise ArtifactError(self.failure)

    def finish(self) -> None:
        """Waits for the end of the check; ArtifactError if there is damage."""
        self._thread.join()
        self.require()

    def stop(self) -> None:
        """Ends a check whose outcome nobody needs."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LEAST_PRIORITY)
        try:
            self._verify(self._go_on)
            self.state = "verified"
        except _StoppedError:
            self.state = "unchecked"
        except DiskError as error:
            log.warning("the check of the model's file could not read all of it: %s", error)
            self.state = "unchecked"
        except RockledgeError as error:
            self.failure = str(error)
            self.state = "damaged"

    def _go_on(self, _: int) -> None:
        if self._stopped.is_set():
            raise _StoppedError
