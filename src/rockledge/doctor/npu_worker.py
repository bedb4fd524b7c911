"""Logits with the NPU, in a process of its own: one whose NPU may be a virtual one.

`python -m rockledge.doctor.npu_worker ARTIFACT MODE OUT.npy TOKEN...` writes the logits of the tokens and
prints the NPU's status as JSON, or an object with `error`.
"""

import json
import sys
from collections.abc import Sequence

import numpy as np

from rockledge.errors import NpuError, RockledgeError
from rockledge.runtime.engine import Engine


def main(arguments: Sequence[str]) -> int:
    """Runs it; 1 where the engine refuses."""
    path, mode, out, *words = arguments
    tokens = [int(word) for word in words]
    try:
        with Engine.load(path, ctx=len(tokens), npu=mode, npu_rows=1, prefixes=False) as engine:
            if not engine.npu.in_use:
                raise NpuError(engine.npu.reason or "it is not used")
            np.save(out, engine.logits(tokens))
            print(json.dumps(engine.npu.body()))
    except RockledgeError as error:
        print(json.dumps({"error": str(error)}))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
