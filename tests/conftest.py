"""What all tests share: no deadline for single examples, because machines that run tests are busy."""

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

# Test processes share the cores: PyTorch's threads must not spin (see cli/pytorch_threads.py).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# A shell starts its background jobs with Ctrl-C ignored, and their children inherit that; some tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps what tests make out of the user's own lists and histories."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


settings.register_profile("rockledge", settings.default, deadline=None)
settings.load_profile("rockledge")


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long tests/serve/test_soak.py goes on; of tests/serve/console/test_pictures.py what and where."""
    parser.addoption("--soak-minutes", type=float, default=5.0, help="minutes of the soak of the server")
    parser.addoption("--console-model", help="artifact of the console's pictures (default: the demo's model)")
    parser.addoption("--console-pictures", help="folder of the console's pictures (default: a temporary one)")
