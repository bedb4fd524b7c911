"""Whether a Hugging Face directory holds a model that makes embeddings, by the files of sentence-transformers
beside it.

`modules.json` lists the modules by class; before version 5.4 all of them were in
`sentence_transformers.models`, and the way of pooling was a flag (huggingface/sentence-transformers:
sentence_transformers/base/model.py, sentence_transformer/modules/pooling.py,
cross_encoder/modules/logit_score.py).
"""

import json
from pathlib import Path
from typing import Any

from rockledge.errors import CheckpointError

_MODULES = "modules.json"
_KNOWN = ("Transformer", "Pooling", "Normalize", "LogitScore")
_POOLING, _LAST = "pooling_mode", "lasttoken"
_DEFAULT = "mean"  # where nothing is said


def is_embedder(path: Path) -> bool:
    """Whether modules.json says so. CheckpointError where it asks for anything but the state after the last
    token, normalised."""
    kinds = _kinds(path)
    if "Pooling" not in kinds:
        return False
    pooling = _read(path / Path(kinds["Pooling"]).name / "config.json")
    if not isinstance(pooling, dict):
        raise CheckpointError(f"the configuration of the pooling in {path} is not an object; fetch it again")
    used = _used(pooling)
    if used != [_LAST]:
        raise CheckpointError(
            f"{path} pools by {' and '.join(used)}, which is not supported; supported is {_LAST}"
        )
    return True


def _used(pooling: dict[str, Any]) -> list[str]:
    """The ways of pooling, whose results stand one after the other."""
    mode = pooling.get(_POOLING)
    if isinstance(mode, (str, list)):
        return sorted(map(str, [mode] if isinstance(mode, str) else mode)) or [_DEFAULT]
    flags = [key for key, value in pooling.items() if key.startswith(f"{_POOLING}_") and value is True]
    names = (key.removeprefix(f"{_POOLING}_") for key in flags)
    return sorted(name.removesuffix("_tokens").removesuffix("_token") for name in names) or [_DEFAULT]


def _kinds(path: Path) -> dict[str, str]:
    """Modules by class, and where each of them has its files; none where there is no modules.json. LogitScore
    is a reranker's, which is a language model."""
    if not (path / _MODULES).is_file():
        return {}
    modules = _read(path / _MODULES)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise CheckpointError(f"{path / _MODULES} is not a list of modules; fetch it again")
    kinds = {str(module.get("type")).rpartition(".")[2]: str(module.get("path") or "") for module in modules}
    if other := sorted(set(kinds) - set(_KNOWN)):
        raise CheckpointError(
            f"{_MODULES} has the module {other[0][:60]}, which is not supported; supported are "
            f"{', '.join(_KNOWN)}"
        )
    return kinds


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable JSON; fetch it again") from error
