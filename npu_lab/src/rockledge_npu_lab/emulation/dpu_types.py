"""How the types that the DPU reads and writes lie in memory."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

# NumPy has no bf16: its elements are kept as their 16 bits.
STORED: Final[dict[str, np.dtype[Any]]] = {
    "int8": np.dtype(np.int8),
    "int16": np.dtype(np.int16),
    "int32": np.dtype(np.int32),
    "fp16": np.dtype(np.float16),
    "bf16": np.dtype(np.uint16),
    "fp32": np.dtype(np.float32),
}
