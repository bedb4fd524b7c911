"""Checkpoint to artifact: calibrate, rotate, price, allocate, round and report. Needs the `quantize` extra.

The package is also the public function: `rockledge.quantize(...)` is `rockledge.quantize.pipeline.quantize`.
"""

import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        from rockledge.quantize.pipeline import quantize

        return quantize(*arguments, **settings)


# Python puts an imported package where the public function of that name is looked for: it must be both.
sys.modules[__name__].__class__ = _CallablePackage
