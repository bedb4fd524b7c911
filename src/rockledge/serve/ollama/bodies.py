"""Fields that several of Ollama's bodies share.

Ollama skips fields that it does not know, and so does this server unless it is strict.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar

from rockledge.errors import UsageError
from rockledge.runtime.constraints.constraint import Constraint, check_constraint
from rockledge.serve.errors import ApiError
from rockledge.serve.ollama.form import FORMAT
from rockledge.serve.ollama.keep_alive import KEEP_ALIVE
from rockledge.serve.ollama.options import OllamaOptions
from rockledge.serve.options import MAX_TOP_LOGPROBS
from rockledge.serve.schema import MOST_SHOWN, Field, Reading, Schema, flag, text, whole, wrong
from rockledge.serve.served_model import ServedModel

EFFORTS = {"low": "low", "medium": "medium", "high": "high", "max": "high"}
"""Of `think`, and what templates know of them."""


def _think(value: Any, reading: Reading) -> bool | str:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value not in EFFORTS:
        # In Ollama's words (server/routes.go), by which clients know that they may ask without a level.
        allowed = ", ".join(f'"{effort}"' for effort in EFFORTS)
        shown = json.dumps(value)[:MOST_SHOWN]
        message = f"invalid think value: {shown} (must be {allowed}, true, or false)"
        raise ApiError(message, param="think")
    return EFFORTS[value]


THINK = Field(_think, {"anyOf": [{"type": "boolean"}, {"type": "string", "enum": list(EFFORTS)}]})
NO_IMAGES = "is not supported: this server reads and writes text only; leave it out"


class OllamaBody(Schema):
    """The fields of every body that asks something of a model. `name` is what `model` was called before."""

    tolerant: ClassVar[bool] = True

    model: Annotated[str, text()] = ""
    name: Annotated[str, text()] = ""
    options: OllamaOptions = OllamaOptions()
    keep_alive: Annotated[float | None, KEEP_ALIVE] = None

    @property
    def asked(self) -> str:
        """The model by the name that the request has for it."""
        return self.model or self.name


class GeneratingBody(OllamaBody):
    """The fields of bodies that ask for text."""

    refused: ClassVar[dict[str, str]] = {
        "images": NO_IMAGES,
        "width": NO_IMAGES,
        "height": NO_IMAGES,
        "steps": NO_IMAGES,
        "template": "is not supported: the model's own chat template is used; leave it out, or use 'raw'",
    }

    format: Annotated[str | dict[str, Any], FORMAT] = ""
    stream: Annotated[bool, flag()] = True
    think: Annotated[bool | str | None, THINK] = None
    logprobs: Annotated[bool, flag()] = False
    top_logprobs: Annotated[int, whole(0, MAX_TOP_LOGPROBS)] = 0
    truncate: Annotated[bool, flag()] = True
    shift: Annotated[bool, flag()] = True

    @property
    def alternatives(self) -> int | None:
        """Log probabilities beside each token's own; None for none at all."""
        if self.top_logprobs and not self.logprobs:
            raise wrong("top_logprobs", "left out unless 'logprobs' is true")
        return self.top_logprobs if self.logprobs else None

    def constraint(self) -> Constraint | None:
        """What the answer has to look like, checked; None for any text.

        Raises:
            ApiError: 400 for a schema that cannot be kept to.
        """
        if self.format == "":
            return None
        schema = self.format
        found = Constraint("json") if schema == "json" else Constraint("json_schema", json.dumps(schema))
        try:
            check_constraint(found)
        except UsageError as error:
            raise ApiError(str(error), param="format") from None
        return found

    def thinking(self, model: ServedModel) -> dict[str, Any]:
        """What `think` says, as fields of a conversation.

        Raises:
            ApiError: 400 for a model that does not think, in Ollama's words.
        """
        thinks = model.dialect is not None and model.dialect.thoughts is not None
        if self.think and not thinks:
            raise ApiError(f'"{self.asked}" does not support thinking', param="think")
        if self.think is None or model.dialect is None:
            return {}
        if self.think is not True:
            return {"reasoning_effort": self.think or "none"}
        switches = {name: True for name in ("enable_thinking", "thinking") if name in model.dialect.variables}
        return {"chat_template_kwargs": switches}
