"""What all tests share: no deadline for single examples, because machines that run tests are busy."""

import os

from hypothesis import settings

# Test processes share the cores: PyTorch's threads must not spin while they wait (see rockledge.quantize).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

settings.register_profile("rockledge", settings.default, deadline=None)
settings.load_profile("rockledge")
