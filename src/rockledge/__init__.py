"""Rockledge: compresses Llama-family models to fit an RK3588 gateway, proves what that cost, and serves them.

The names below are imported on first use, so that `import rockledge` costs nothing and never needs PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rockledge.quantization.pipeline import quantize
    from rockledge.runtime.engine import Engine
    from rockledge.runtime.model import Model

__version__ = "0.1.0"
__all__ = ["Engine", "Model", "__version__", "quantize"]

_HOMES = {
    "Engine": "rockledge.runtime.engine",
    "Model": "rockledge.runtime.model",
    "quantize": "rockledge.quantization.pipeline",
}


def __getattr__(name: str) -> Any:
    """The public object `name`, imported from the module that defines it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'rockledge' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
