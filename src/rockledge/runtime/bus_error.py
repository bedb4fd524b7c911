"""One sentence instead of "Bus error" when an artifact's file is cut short while it is in use."""

from collections.abc import Iterator
from contextlib import contextmanager

from rockledge.artifact import Artifact
from rockledge.errors import ArtifactError
from rockledge.runtime.native import library

_MOST = 1023  # bytes of the sentence; the core keeps no more


@contextmanager
def explained_bus_errors(artifact: Artifact) -> Iterator[None]:
    """Meanwhile a read of the mapped file beyond its new end ends the process with a sentence on stderr and the
    exit code of ArtifactError. It sets the process's handler of SIGBUS, so it is for commands, which have one
    artifact open, not for libraries."""
    sentence = f"rockledge: {artifact.path} was cut short while in use; fetch the artifact again\n"
    mapped = artifact.mapped
    end = sentence.encode(errors="replace")[-_MOST:]
    library().rl_explain_bus_errors(mapped.ctypes.data, mapped.nbytes, end, ArtifactError.exit_code)
    try:
        yield
    finally:
        library().rl_explain_bus_errors(None, 0, b"", 0)
