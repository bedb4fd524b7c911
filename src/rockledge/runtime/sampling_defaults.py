"""How tokens are drawn where nobody says: as the model's generation_config.json asks for, or else by the use.

The fields are those of transformers' GenerationConfig. A field that is absent is off, as in vLLM, which takes
the same ones from the file (`ModelConfig.get_diff_sampling_param`); `"do_sample": false` means greedy.
"""

import json
import logging
from collections.abc import Mapping
from math import isfinite
from typing import Any

from rockledge.errors import UsageError
from rockledge.runtime import choices
from rockledge.runtime.sampling import Sampling

FILE = "generation_config.json"
GREEDY = Sampling()
CONVERSATION = Sampling(**choices.CONVERSATION)  # type: ignore[arg-type]
"""For chat and for the HTTP interface, where greedy answers soon repeat themselves."""

_FIELDS = ("temperature", "top_k", "top_p", "min_p")

log = logging.getLogger(__name__)


def default_sampling(files: Mapping[str, bytes], otherwise: Sampling) -> Sampling:
    """What the model's `files` ask for, or `otherwise` where they say nothing or make no sense (which is
    logged)."""
    if FILE not in files:
        return otherwise
    try:
        asked = json.loads(files[FILE])
        return _sampling(asked if isinstance(asked, dict) else {}, otherwise)
    except (ValueError, TypeError, UsageError) as error:
        log.warning("%s is not used for sampling (%s)", FILE, error)
        return otherwise


def _sampling(asked: Mapping[str, Any], otherwise: Sampling) -> Sampling:
    given = {name: _number(name, asked[name]) for name in _FIELDS if asked.get(name) is not None}
    if asked.get("do_sample") is False:
        return GREEDY
    if not given and asked.get("do_sample") is not True:
        return otherwise
    return Sampling(
        temperature=given.get("temperature", 1.0),
        top_k=max(int(given.get("top_k", 0)), 0),  # some files turn it off by -1
        top_p=given.get("top_p", 1.0),
        min_p=given.get("min_p", 0.0),
    )


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        raise ValueError(f"{name} is {value!r}, expected a number")
    return float(value)
