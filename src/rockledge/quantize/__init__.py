"""Checkpoint to artifact: calibrate, rotate, price, allocate, round and report. Needs the `quantize` extra.

The package is also the public function: `rockledge.quantize(...)` is `rockledge.quantize.pipeline.quantize`.
"""

import os
import sys
from types import ModuleType
from typing import Any

# PyTorch's threads spin while they wait for each other. On a machine that has other work, too, they then
# spend ten times as long; sleeping costs an idle machine next to nothing. Read when PyTorch is first
# imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


class _CallablePackage(ModuleType):
    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        from rockledge.quantize.pipeline import quantize

        return quantize(*arguments, **settings)


# Python puts an imported package where the public function of that name is looked for: it must be both.
sys.modules[__name__].__class__ = _CallablePackage
