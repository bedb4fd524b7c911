"""One sentence instead of "Bus error" when an artifact's file is cut short while it is in use."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rockledge.artifact import Artifact
from rockledge.errors import ArtifactError
from rockledge.runtime.native import library

_alone = threading.Lock()
_MOST = 1023  # bytes of the sentence; the core keeps no more


@contextmanager
def explained_bus_errors(artifact: Artifact) -> Iterator[None]:
    """Meanwhile a read of the mapped file beyond its new end ends the process with a sentence on stderr and
    the exit code of ArtifactError. It sets the process's handler of SIGBUS, so it is for commands, not for
    libraries. Several artifacts can be watched at once, from any threads."""
    sentence = f"rockledge: {artifact.path} was cut short while in use; fetch the artifact again\n"
    mapped = artifact.mapped
    end = sentence.encode(errors="replace")[-_MOST:]
    _call(mapped.ctypes.data, mapped.nbytes, end, ArtifactError.exit_code)
    try:
        yield
    finally:
        _call(mapped.ctypes.data, 0, b"", 0)


def _call(*arguments: int | bytes) -> None:
    with _alone:
        library().rl_explain_bus_errors(*arguments)
