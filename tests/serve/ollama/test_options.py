"""`options` and `keep_alive`: what reaches the engine, and what is refused."""

import json
import logging
import math
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.serve.ollama.conftest import CONTEXT
from tests.serve.scripted_engine import ScriptedEngine

from rockledge.runtime.sampling import Sampling
from rockledge.serve.errors import ApiError
from rockledge.serve.http.log_throttle import LogThrottle
from rockledge.serve.ollama import options
from rockledge.serve.ollama.bodies import OllamaBody
from rockledge.serve.ollama.options import OllamaOptions
from rockledge.serve.schema import DEFAULT_READING, read_body

MODEL = Sampling(temperature=0.6, top_k=20, top_p=0.95, min_p=0.01)


def sampling(**given: Any) -> Sampling:
    found = read_body(OllamaOptions, given, DEFAULT_READING)
    found.check(CONTEXT)
    return found.sampling(MODEL)


def refusal(**given: Any) -> str:
    with pytest.raises(ApiError) as caught:
        read_body(OllamaBody, {"options": given}, DEFAULT_READING).options.check(CONTEXT)
    assert caught.value.status == 400
    return str(caught.value)


def test_what_is_not_named_stays_as_the_model_has_it() -> None:
    assert sampling() == MODEL
    assert sampling(temperature=0) == Sampling(temperature=0.0, top_k=20, top_p=0.95, min_p=0.01)
    assert sampling(top_k=-1, top_p=1, min_p=0, temperature=3) == Sampling(temperature=3.0)
    found = sampling(seed=42, repeat_penalty=1.2, presence_penalty=1.5, frequency_penalty=1)
    assert (found.seed, found.repetition_penalty) == (42, 1.2)
    assert (found.presence_penalty, found.frequency_penalty) == (1.5, 1.0)
    assert sampling(seed=-1).seed is None
    assert sampling(seed=-2).seed == (1 << 64) - 2


def test_what_loads_a_model_changes_no_answer() -> None:
    # All options of the example in Ollama's documentation that are not about sampling.
    loading = {
        "num_keep": 5,
        "numa": False,
        "num_ctx": 1024,
        "num_batch": 2,
        "num_gpu": 1,
        "main_gpu": 0,
        "low_vram": False,
        "vocab_only": False,
        "use_mmap": True,
        "use_mlock": False,
        "num_thread": 8,
        "f16_kv": True,
        "made_up": [1],
    }
    assert sampling(**loading) == MODEL


def test_defaults_are_taken_and_what_would_change_the_answer_is_refused_by_name() -> None:
    defaults = {"mirostat": 0, "mirostat_tau": 5.0, "mirostat_eta": 0.1, "typical_p": 1.0, "tfs_z": 1}
    assert sampling(**defaults, penalize_newline=True, repeat_last_n=64) == MODEL
    assert refusal(mirostat=2) == (
        "'options.mirostat' must be 0: this server does not sample by mirostat; leave it out"
    )
    assert refusal(typical_p=0.7).startswith("'options.typical_p' must be 1")
    assert refusal(tfs_z=0.5).startswith("'options.tfs_z' must be 1")
    assert refusal(temperature="hot").startswith("'options.temperature' must be a number")
    assert refusal(stop=[f"{i}" for i in range(10_000)]).startswith("'options.stop' must be")


def test_penalties_look_at_all_tokens_or_at_none() -> None:
    assert sampling(repeat_penalty=1.1, repeat_last_n=64).repetition_penalty == 1.1
    assert sampling(repeat_penalty=1.1, repeat_last_n=-1).repetition_penalty == 1.1
    assert sampling(repeat_penalty=1.1, repeat_last_n=0) == MODEL
    assert sampling(repeat_last_n=33) == MODEL
    assert refusal(repeat_penalty=1.1, repeat_last_n=33).startswith("'options.repeat_last_n' must be -1")
    assert refusal(presence_penalty=1, penalize_newline=False).startswith("'options.penalize_newline'")


def test_options_reach_the_engine(qwen: httpx.Client, engine: ScriptedEngine) -> None:
    wanted = {"stop": ["wor"], "seed": 7, "temperature": 0.5, "num_predict": 4, "num_ctx": 2048}
    body = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}], "options": wanted}
    assert qwen.post("/api/chat", json=body).status_code == 200
    [request] = engine.requests
    assert (request.stop, request.max_tokens) == (("wor",), 4)
    assert (request.sampling.seed, request.sampling.temperature) == (7, 0.5)


def test_a_larger_context_than_there_is_is_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "log", LogThrottle(logging.getLogger("test")))
    with caplog.at_level(logging.WARNING):
        sampling(num_ctx=131072)
        sampling(num_ctx=131072)
    [record] = caplog.records
    assert "a context of 131072 tokens (num_ctx); this server's is 4096" in record.getMessage()


def keep_alive(value: Any) -> float | None:
    return read_body(OllamaBody, {"keep_alive": value}, DEFAULT_READING).keep_alive


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        (0, 0.0),
        ("0", 0.0),
        (300, 300.0),
        (1.5, 1.5),
        ("300", 300.0),
        (" 5 ", 5.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1h15m30.918s", 4530.918),
        ("1h.5m", 3630.0),
        ("1.h.5m1.5us", 3630.0000015),
        ("500ms", 0.5),
        (".5s", 0.5),
        ("+5s", 5.0),
        (-1, -1.0),
        (-60, -1.0),
        ("-1", -1.0),
        ("-1s", -1.0),
        ("-1m", -1.0),
        (10**400, -1.0),
    ],
)
def test_durations(value: Any, seconds: float | None) -> None:
    assert keep_alive(value) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("value", ["", "5 minutes", "m", True, [], "1h" * 100, "nan", "٥s", "5d"])
def test_what_is_no_duration_is_refused(value: Any) -> None:
    with pytest.raises(ApiError, match="'keep_alive' must be a number of seconds"):
        keep_alive(value)


@given(
    st.one_of(
        st.text(), st.floats(), st.integers(), st.from_regex(r"-?((\d+\.?\d*|\.\d+)(h|m|s|ms|us|µs|ns))+")
    )
)
def test_a_duration_is_seconds_or_refused(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        value = json.loads(json.dumps(value))
    try:
        found = keep_alive(value)
    except ApiError:
        return
    assert found is not None
    assert found == -1.0 or (found >= 0 and math.isfinite(found))
