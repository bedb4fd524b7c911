"""PyTorch's threads sleep while they wait for each other."""

import os
import sys


def let_threads_sleep() -> None:
    """To be called before PyTorch is imported for the first time; afterwards nothing can be changed any more.

    By default the threads of its OpenMP library (libgomp) spin at the end of every parallel loop. With other
    work on these cores they take the time that the thread they wait for needs (measured: docs/log.md,
    2026-11-30). libgomp reads OMP_WAIT_POLICY when it is loaded and has no call for it. A setting of the user
    stays.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
