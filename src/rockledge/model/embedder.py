"""How a model in a Hugging Face directory makes embeddings, by the files of sentence-transformers beside it.

`modules.json` lists the modules by class; before version 5.4 all of them were in
`sentence_transformers.models`, and the way of pooling was a flag (huggingface/sentence-transformers:
sentence_transformers/base/model.py, sentence_transformer/modules/pooling.py,
cross_encoder/modules/logit_score.py).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rockledge.errors import CheckpointError
from rockledge.model.config import Pooling
from rockledge.regular_file import read_regular

_MODULES = "modules.json"
_KNOWN = ("Transformer", "Pooling", "Normalize", "LogitScore")
_POOLING = "pooling_mode"
_SUPPORTED: Mapping[str, Pooling] = {"lasttoken": "last", "mean": "mean"}
_DEFAULT = "mean"  # where nothing is said


def pooling_of(path: Path) -> Pooling | None:
    """What modules.json says; None for a model that makes no embeddings. CheckpointError where it asks for
    anything but the state after the last token or the mean of all."""
    kinds = _kinds(path)
    if "Pooling" not in kinds:
        return None
    pooling = _read(path / Path(kinds["Pooling"]).name / "config.json")
    if not isinstance(pooling, dict):
        raise CheckpointError(f"the configuration of the pooling in {path} is not an object; fetch it again")
    used = _used(pooling)
    if len(used) != 1 or used[0] not in _SUPPORTED:
        raise CheckpointError(
            f"{path} pools by {' and '.join(used)}, which is not supported; supported are "
            f"{' or '.join(_SUPPORTED)}"
        )
    found = _SUPPORTED[used[0]]
    if found == "mean" and pooling.get("include_prompt") is False:
        raise CheckpointError(f"{path} pools without the tokens of its prompts, which is not supported")
    return found


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
        return json.loads(read_regular(path))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable JSON; fetch it again") from error
