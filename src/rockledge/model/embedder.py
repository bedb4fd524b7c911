"""Whether a Hugging Face directory holds a model that makes embeddings, by the files of sentence-transformers
beside it."""

import json
from pathlib import Path
from typing import Any

from rockledge.errors import CheckpointError

_MODULES, _PREFIX = "modules.json", "sentence_transformers.models."
_KNOWN = ("Transformer", "Pooling", "Normalize")
_POOLING, _LAST = "pooling_mode_", "pooling_mode_lasttoken"


def is_embedder(path: Path) -> bool:
    """Whether modules.json says so. CheckpointError where it asks for anything but the state after the last
    token, normalised."""
    if not (path / _MODULES).is_file():
        return False
    modules = _read(path / _MODULES)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise CheckpointError(f"{path / _MODULES} is not a list of modules; fetch it again")
    kinds = {str(module.get("type")).removeprefix(_PREFIX): str(module.get("path")) for module in modules}
    if other := sorted(set(kinds) - set(_KNOWN)):
        raise CheckpointError(
            f"{_MODULES} has the module {other[0][:60]}, which is not supported; supported are "
            f"{', '.join(_KNOWN)}"
        )
    if "Pooling" not in kinds:
        return False
    pooling = _read(path / Path(kinds["Pooling"]).name / "config.json")
    if not isinstance(pooling, dict):
        raise CheckpointError(f"the configuration of the pooling in {path} is not an object; fetch it again")
    used = sorted(key for key, value in pooling.items() if key.startswith(_POOLING) and value is True)
    if used != [_LAST]:
        raise CheckpointError(
            f"{path} pools by {' and '.join(used) or 'nothing'}, which is not supported; supported is {_LAST}"
        )
    return True


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable JSON; fetch it again") from error
