"""A process that runs `rockledge` as one of several which share weights by FSDP, on CPUs.

accelerate offers FSDP for GPUs only, though PyTorch has it for CPUs with gloo; here it is told that these are
GPUs, so that the code for several GPUs runs where there are none.
"""

import sys
from typing import Any

import accelerate.state
from accelerate.utils import DistributedType

from rockledge.cli.main import main

_begin = accelerate.state.PartialState.__init__


def _begin_as_gpus(self: Any, *arguments: Any, **named: Any) -> None:
    _begin(self, *arguments, **named)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU


accelerate.state.PartialState.__init__ = _begin_as_gpus  # type: ignore[method-assign]
code = main(sys.argv[1:])
print("as", accelerate.state.AcceleratorState().distributed_type, file=sys.stderr)
sys.exit(code)
