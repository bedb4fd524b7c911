"""Sampling that nobody asked for: the model's, or else the use's."""

import json
import logging
from typing import Any

import pytest

from rockledge.runtime.sampling import Sampling
from rockledge.runtime.sampling_defaults import CONVERSATION, GREEDY, default_sampling


def defaults(asked: Any, otherwise: Sampling = CONVERSATION) -> Sampling:
    return default_sampling({"generation_config.json": json.dumps(asked).encode()}, otherwise)


# Files as their makers publish them: Llama 3.2 and Qwen3 name values, SmolLM2 names only tokens.
@pytest.mark.parametrize(
    "asked, found",
    [
        ({"do_sample": True, "temperature": 0.6, "top_p": 0.9}, Sampling(0.6, 0, 0.9)),
        ({"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}, Sampling(0.6, 20, 0.95)),
        ({"eos_token_id": 2}, CONVERSATION),
        ({"temperature": 0.3}, Sampling(0.3)),
        ({"top_k": 64, "top_p": 0.95}, Sampling(1.0, 64, 0.95)),
        ({"top_k": -1, "temperature": 0.6}, Sampling(0.6)),
        ({"do_sample": True}, Sampling(1.0)),
        ({"do_sample": False, "temperature": 0.6}, GREEDY),
        ({"temperature": 0.0}, GREEDY),
        ({"temperature": None, "top_p": None}, CONVERSATION),
        ({"min_p": 0.1, "temperature": 1}, Sampling(1.0, min_p=0.1)),
    ],
)
def test_the_models_own_come_first(asked: dict[str, Any], found: Sampling) -> None:
    assert defaults(asked) == found


def test_without_any_the_use_decides() -> None:
    assert default_sampling({}, GREEDY) == GREEDY
    assert defaults({}, GREEDY) == GREEDY
    assert Sampling(temperature=0.7, top_p=0.95, min_p=0.05) == CONVERSATION


@pytest.mark.parametrize(
    "text", [b"{", b"[]", b"\xff", b'{"temperature": "hot"}', b'{"top_p": 7}', b'{"temperature": 1e999}']
)
def test_a_file_that_makes_no_sense_is_said_and_not_used(
    text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert default_sampling({"generation_config.json": text}, CONVERSATION) == CONVERSATION
    assert text == b"[]" or "is not used for sampling" in caplog.text
