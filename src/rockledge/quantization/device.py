"""The PyTorch device that a run computes on, refused before any work when it is not there."""

import torch

from rockledge.errors import UsageError

_KINDS = ("cpu", "cuda")


def check_device(name: str) -> None:
    """Raises UsageError unless `name` is "cpu", or "cuda" (with a number or without) and there is such a
    device."""
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in _KINDS:
        raise UsageError(f"the device is '{name}', expected cpu or cuda (cuda:1 for the second one)")
    if device.type == "cpu":
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise UsageError("there is no CUDA device here (PyTorch finds none); use cpu, which is the default")
    if device.index is not None and device.index >= count:
        raise UsageError(f"the device is '{name}', expected at most cuda:{count - 1}: there are {count} here")
