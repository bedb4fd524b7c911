"""Which model a directory holds, by the whole contents of its files."""

import hashlib
from pathlib import Path

_PART = 1 << 24  # bytes read at a time


def files_digest(directory: Path) -> str:
    """SHA-256 of names, sizes and contents of the model files in a directory."""
    digest = hashlib.sha256()
    for file in sorted(directory.iterdir()):
        if file.suffix in (".safetensors", ".json") and file.is_file():
            digest.update(f"{file.name} {file.stat().st_size} ".encode())
            with open(file, "rb") as opened:
                while part := opened.read(_PART):
                    digest.update(part)
    return digest.hexdigest()
