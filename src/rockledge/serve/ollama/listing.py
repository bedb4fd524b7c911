"""What is said of models: `/api/tags`, `/api/ps`, `/api/show`."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from rockledge.serve.ollama.names import tagged
from rockledge.serve.residency.models import Models
from rockledge.serve.residency.running import Resident
from rockledge.serve.served_model import ServedModel

NEVER = datetime(2300, 1, 1, tzinfo=timezone.utc)
"""When a model is unloaded that stays for ever: clients want a date (Ollama's own is about this far away)."""

_SIZES = ((10**9, "B"), (10**6, "M"), (10**3, "K"))


def parameter_size(count: int) -> str:
    """A number of parameters as Ollama writes it: 1.7B, 135M."""
    for size, letter in _SIZES:
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return str(count)


def tags(models: Models) -> dict[str, Any]:
    """The answer of `/api/tags`: every name of every model."""
    return {"models": [_listed(model, name) for model in models for name in model.names]}


def resident(models: Models) -> dict[str, Any]:
    """The answer of `/api/ps`: the models that are loaded."""
    return {"models": [_resident(found) for found in models.resident()]}


def _resident(found: Resident) -> dict[str, Any]:
    expires = NEVER if found.expires_at is None else found.expires_at
    listed = _listed(found.model, found.model.name)
    del listed["modified_at"]
    return {
        **listed,
        "size": found.bytes,
        "size_vram": 0,  # all of it is in the one memory that there is
        "expires_at": expires.isoformat(),
        "context_length": found.model.context,
    }


def _listed(model: ServedModel, name: str) -> dict[str, Any]:
    return {
        "name": tagged(name),
        "model": tagged(name),
        "modified_at": model.details.modified.isoformat(),
        "size": model.details.bytes,
        "digest": model.details.digest,
        "details": details(model),
    }


def details(model: ServedModel) -> dict[str, Any]:
    """What Ollama calls the details of a model."""
    found = model.details
    return {
        "parent_model": "",
        "format": "rockledge",
        "family": found.family,
        "families": [found.family],
        "parameter_size": parameter_size(found.parameters),
        "quantization_level": f"{found.bits_per_weight:.2f} bits",
    }


def capabilities(model: ServedModel) -> list[str]:
    """What it can do, in Ollama's words (types/model/capability.go). Every model with a chat template can
    call tools, if not by its own form then by the generic one."""
    able = {
        "completion": model.generates,
        "tools": model.generates and model.chat is not None,
        "thinking": model.generates and model.dialect is not None and model.dialect.thoughts is not None,
        "insert": model.generates and model.filling is not None,
        "embedding": model.pools,
    }
    return [name for name, does in able.items() if does]


def show(model: ServedModel) -> dict[str, Any]:
    """The answer of `/api/show`. Of `model_info` there is what clients look for."""
    family, sampling = model.details.family, model.sampling
    shown = {name: getattr(sampling, name) for name in ("temperature", "top_k", "top_p", "min_p")}
    return {
        "modelfile": f"FROM {model.name}\n",
        "parameters": "".join(f"{name:<30} {value}\n" for name, value in shown.items()),
        "template": "" if model.chat is None else "".join(model.chat.sources[:1]),
        "details": details(model),
        "model_info": {
            "general.architecture": family,
            "general.basename": model.name,
            "general.parameter_count": model.details.parameters,
            f"{family}.context_length": model.context,
            f"{family}.vocab_size": model.vocab,
        },
        "capabilities": capabilities(model),
        "modified_at": model.details.modified.isoformat(),
    }
