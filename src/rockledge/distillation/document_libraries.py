"""The libraries that read HTML and PDF, which only the extra `distil` installs."""

from importlib.util import find_spec

from rockledge.errors import RockledgeError
from rockledge.pip_command import extra_requirements, pip_install


def require_library(module: str, kind: str) -> None:
    """Raises RockledgeError with the command that installs `module`, where it is missing."""
    if find_spec(module) is None:
        raise RockledgeError(
            f"{kind} documents need {module}, which is not installed; run: "
            f"{pip_install(*extra_requirements('distil'))}"
        )
