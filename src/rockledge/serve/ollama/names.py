"""Names of models as Ollama has them: `NAME:TAG` in any case, where no tag means `latest`."""

from __future__ import annotations

from rockledge.serve.errors import ApiError
from rockledge.serve.residency.models import LATEST, Models
from rockledge.serve.schema import MOST_SHOWN, wrong
from rockledge.serve.served_model import ServedModel


def tagged(name: str) -> str:
    """The name with its tag."""
    return name if ":" in name.rpartition("/")[2] else name + LATEST


def find_model(models: Models, body: object, missing: str = "not found, try pulling it first") -> ServedModel:
    """The model that `model` of a body names, or `name`, as that was called before.

    Raises:
        ApiError: 400 without a name; 404 that it is `missing`, by default in the words of Ollama
            (server/routes.go), by which clients know it.
    """
    if not isinstance(body, dict):
        raise ApiError("the request body must be a JSON object")
    name = next((body[key] for key in ("model", "name") if body.get(key) is not None), None)
    if not isinstance(name, str) or not name:
        raise wrong("model", "the name of a model")
    for same in (str, tagged, _folded):
        for model in models:
            if same(name) in map(same, model.names):
                return model
    shown = name[:MOST_SHOWN].replace('"', "'")
    raise ApiError(f'model "{shown}" {missing}', status=404, param="model", code="model_not_found")


def _folded(name: str) -> str:
    return tagged(name).casefold()
