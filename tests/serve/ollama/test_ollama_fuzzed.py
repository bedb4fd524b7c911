"""Whatever JSON arrives, Ollama's addresses answer it or name the client's mistake."""

import json
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serve.scripted_engine import ScriptedEngine
from tests.serve.test_requests_fuzzed import calls, functions, json_values

messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool"])},
        optional={
            "content": st.text(max_size=5) | json_values,
            "tool_calls": st.lists(calls, max_size=2) | json_values,
            "tool_name": st.sampled_from(["f", "g"]) | json_values,
            "thinking": st.text(max_size=3),
            "images": st.lists(st.text(max_size=3), max_size=1),
        },
    ),
    max_size=4,
)
options = st.dictionaries(
    st.sampled_from(
        [
            "num_predict",
            "temperature",
            "top_k",
            "top_p",
            "seed",
            "stop",
            "repeat_penalty",
            "mirostat",
            "num_ctx",
        ]
    ),
    st.integers(-2, 3) | st.floats(0, 2) | json_values,
    max_size=3,
)
likely: dict[str, st.SearchStrategy[Any]] = {
    "messages": messages,
    "prompt": st.text(max_size=8),
    "suffix": st.text(max_size=2),
    "system": st.text(max_size=5),
    "context": st.lists(st.integers(-1, 258), max_size=5),
    "raw": st.booleans(),
    "template": st.sampled_from(["", "x"]),
    "input": st.text(max_size=5) | st.lists(st.text(max_size=3), max_size=3),
    "dimensions": st.integers(-1, 5),
    "stream": st.booleans(),
    "format": st.sampled_from(["", "json", {"type": "object"}, {"type": "string", "format": "x"}])
    | json_values,
    "think": st.booleans() | st.sampled_from(["low", "never"]),
    "keep_alive": st.integers(-1, 5) | st.sampled_from(["5m", "-1s", "x"]),
    "options": options,
    "tools": json_values | st.lists(st.fixed_dictionaries({"function": functions}), max_size=2),
    "logprobs": st.booleans(),
    "top_logprobs": st.integers(0, 21),
    "truncate": st.booleans(),
    "name": st.text(max_size=3),
}
odd = st.dictionaries(st.sampled_from(sorted([*likely, "model"])), json_values, max_size=1)
bodies = st.builds(
    lambda body, one: {"model": "scripted", **body, **one}, st.fixed_dictionaries({}, optional=likely), odd
)
PATHS = ("/api/chat", "/api/generate", "/api/embed", "/api/embeddings", "/api/show", "/api/pull")


@given(st.sampled_from(PATHS), bodies | json_values)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_server_never_fails(qwen: httpx.Client, engine: ScriptedEngine, path: str, body: Any) -> None:
    response = qwen.post(path, json=body)
    assert response.status_code in (200, 400, 404), response.text
    found = [json.loads(line) for line in response.text.splitlines()]
    if response.status_code != 200:
        [failure] = found
        assert list(failure) == ["error"]
        assert isinstance(failure["error"], str)
    elif path in PATHS[:2]:
        assert found[-1]["done"]
        assert found[-1]["done_reason"] in ("stop", "length", "load", "unload")
