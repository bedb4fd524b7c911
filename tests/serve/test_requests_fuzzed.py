"""Whatever JSON arrives, the answer is an answer or names the client's mistake; the server never fails."""

from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 300)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
functions = st.fixed_dictionaries(
    {"name": st.sampled_from(["f", "g", ""])}, optional={"arguments": json_values, "parameters": json_values}
)
calls = st.fixed_dictionaries({"function": functions}, optional={"id": st.text(max_size=3)})
likely: dict[str, st.SearchStrategy[Any]] = {
    "messages": st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": json_values},
            optional={"tool_calls": st.lists(calls, max_size=2), "reasoning": st.text(max_size=3)},
        ),
        max_size=3,
    ),
    "prompt": st.text(max_size=8)
    | st.lists(st.integers(-1, 259), max_size=5)
    | st.lists(st.text(max_size=3)),
    "max_tokens": st.integers(-1, 80),
    "temperature": st.floats(-0.5, 2.5),
    "top_p": st.floats(0, 1),
    "top_k": st.integers(-1, 5),
    "min_p": st.floats(0, 1),
    "seed": st.integers(-(1 << 70), 1 << 70),
    "stop": st.text(max_size=2) | st.lists(st.text(max_size=2), max_size=3),
    "logprobs": st.booleans() | st.integers(-1, 22),
    "top_logprobs": st.integers(0, 21),
    "echo": st.booleans(),
    "stream": st.booleans(),
    "stream_options": st.fixed_dictionaries({"include_usage": st.booleans()}),
    "n": st.integers(0, 2),
    "user": st.text(max_size=3),
    "tools": json_values | st.lists(st.fixed_dictionaries({"function": functions}), max_size=2),
    "tool_choice": st.sampled_from(["auto", "none", "required", {"function": {"name": "f"}}]),
    "parallel_tool_calls": st.booleans(),
    "continue_final_message": st.booleans(),
    "chat_template_kwargs": st.dictionaries(st.text(max_size=3), json_values, max_size=2),
    "reasoning_effort": st.sampled_from(["none", "high"]),
}
# At most one field is anything at all: with more, hardly a request would get past the first check.
odd = st.dictionaries(st.sampled_from(sorted(likely)), json_values, max_size=1)
bodies = st.builds(lambda body, one: {**body, **one}, st.fixed_dictionaries({}, optional=likely), odd)


def check(http: httpx.Client, path: str, body: Any) -> None:
    response = http.post(path, json=body)
    assert response.status_code in (200, 400)
    if response.status_code == 400:
        assert response.json()["error"]["type"] == "invalid_request_error"
    elif body.get("stream"):
        assert response.text.endswith("data: [DONE]\n\n")
    else:
        assert {choice["finish_reason"] for choice in response.json()["choices"]} <= {"stop", "length"}


fuzz = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzz
@given(bodies)
def test_chat(http: httpx.Client, body: Any) -> None:
    check(http, "/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], **body})


@fuzz
@given(bodies)
def test_completions(http: httpx.Client, body: Any) -> None:
    body.pop("messages", None)
    check(http, "/v1/completions", {"prompt": "Hi", **body})
