"""Whether the weights are what was written, while the server answers from them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, Protocol

from rockledge.artifact.background import BackgroundCheck
from rockledge.errors import ArtifactError, DiskError
from rockledge.serve.errors import ApiError, server_busy

POLL_SECONDS: Final = 1.0
POLLS_PER_SAMPLE: Final = 10
"""Every so many polls the ends of all tensors are read, for changes that leave no time stamp."""

CHANGED: Final = "the model's file was written to while in use and is being checked; try again in a moment"

log = logging.getLogger(__name__)


class Watch(Protocol):
    """As `ArtifactWatch`."""

    def changed(self) -> bool:
        """Whether the file was written to since the last call; ArtifactError when it was cut short."""

    def check_ends(self) -> None:
        """ArtifactError when a sample of the file is damaged."""


class Integrity:
    """Checks all of the artifact once in the background, and again after its file was written to.

    `failure` is the sentence about damage, None as long as none was found; `state` is "unchecked",
    "checking", "verified" or "damaged". While a changed file is checked, nothing may be answered from it.
    """

    def __init__(
        self,
        verify: Callable[[Callable[[int], None]], None] | None = None,
        watch: Watch | None = None,
        *,
        poll_s: float = POLL_SECONDS,
    ) -> None:
        """`verify` reads every byte, as `Artifact.verify`; `watch` notices changes."""
        self._verify = verify
        self._watch = watch
        self._poll_s = poll_s
        self._check = None if verify is None else BackgroundCheck(verify)
        self._changed = False
        self._damage: str | None = None
        self._ended = threading.Event()
        self._tell: Callable[[ApiError], None] = lambda _: None
        self._thread = threading.Thread(target=self._poll, name="artifact watch", daemon=True)

    @property
    def failure(self) -> str | None:
        """The sentence about damage."""
        return self._damage or (None if self._check is None else self._check.failure)

    @property
    def state(self) -> str:
        """How far the check is."""
        if self.failure is not None:
            return "damaged"
        return "unchecked" if self._check is None else self._check.state

    @property
    def trouble(self) -> ApiError | None:
        """Why nothing may be answered now: damage, or a change that is not checked yet."""
        if self.failure is not None:
            return ApiError(self.failure, status=503, code="artifact_damaged")
        return server_busy(CHANGED) if self._changed else None

    def require(self) -> None:
        """Raises the trouble, if there is one."""
        if self.trouble is not None:
            raise self.trouble

    def start(self, tell: Callable[[ApiError], None]) -> None:
        """Begins. `tell` is called, in another thread, once for damage and once for every change."""
        self._tell = tell
        if self._check is not None:
            self._check.start()
        self._thread.start()

    def close(self) -> None:
        """Ends the checks."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._check is not None and self._check.state == "checking":
            self._check.stop()

    def _poll(self) -> None:
        polls = 0
        while not self._ended.wait(self._poll_s):
            polls += 1
            try:
                self._look(sample=polls % POLLS_PER_SAMPLE == 0)
            except ArtifactError as error:
                self._damage = str(error)
            except DiskError as error:
                log.warning("the model's file cannot be looked at: %s", error)
            except OSError as error:
                log.warning("the model's file cannot be watched any more (%s)", error)
                return
            if self.failure is not None:
                log.error("%s", self.failure)
                self._tell(ApiError(self.failure, status=503, code="artifact_damaged"))
                return

    def _look(self, *, sample: bool) -> None:
        changed = self._watch is not None and self._watch.changed()
        if changed:
            self._changed = True
            log.warning("%s", CHANGED)
            self._tell(server_busy(CHANGED))
        unread = self._check is not None and self._check.state == "unchecked" and (self._changed or sample)
        if (changed or unread) and self._verify is not None:
            assert self._check is not None
            if self._check.state == "checking":
                self._check.stop()
            self._check = BackgroundCheck(self._verify)
            self._check.start()
        elif self._changed and (self._check is None or self._check.state == "verified"):
            self._changed = False
            log.warning("the model's file is as it was written")
        if self._watch is not None and (changed or sample):
            self._watch.check_ends()
