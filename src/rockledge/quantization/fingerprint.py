"""What a measurement depends on, as plain data: two runs with one fingerprint may share their files.

The budget is not part of it, because candidates and prices are the same for every budget.
"""

from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from rockledge import __version__
from rockledge.model.checkpoint import Checkpoint
from rockledge.quantization.calibration.sequences import Calibration
from rockledge.quantization.request import Request


def fingerprint(
    checkpoint: Checkpoint, text: Calibration, asked: Request, widths: Sequence[int], device: str
) -> dict[str, Any]:
    """By name of what may differ, as JSON can hold it.

    The model is known by its configuration and by names, sizes and times of its files: reading 16 GB for a
    checksum would take as long as some of the work it saves.
    """
    tokens = sha256(text.sequences.tobytes() + text.held_out.tobytes())
    return {
        "version": __version__,
        "model": sha256(repr((asdict(checkpoint.config), checkpoint.stored)).encode()).hexdigest(),
        "files": _files(checkpoint.path),
        "calibration": tokens.hexdigest(),
        "seed": asked.seed,
        "gradients": asked.gradient_sequences,
        "steps": asked.steps.before_prices(),
        "widths": list(widths),
        "device": device,
    }


def _files(path: Path) -> list[list[str | int]]:
    """Name, bytes and time of change of the file, or of every file in the directory."""
    inside = sorted(path.iterdir()) if path.is_dir() else [path]
    stats = [(file.name, file.stat()) for file in inside if file.is_file()]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
