"""Whatever items arrive, the answer is an answer or names the client's mistake; streamed or not it is one."""

import json
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serve.responses.test_responses import build, plain
from tests.serve.test_requests_fuzzed import json_values

parts = st.fixed_dictionaries(
    {"type": st.sampled_from(["input_text", "output_text", "refusal", "input_image", "text", 3])},
    optional={"text": st.text(max_size=3), "refusal": st.text(max_size=2)},
)
content = st.text(max_size=4) | st.lists(parts, max_size=2) | json_values
items = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["message", "function_call", "function_call_output", "reasoning", "x", None]),
        "role": st.sampled_from(["system", "developer", "user", "assistant", "tool"]),
        "content": content,
        "output": content,
        "call_id": st.text(max_size=3),
        "name": st.sampled_from(["f", "g", ""]),
        "arguments": json_values | st.sampled_from(["{}", "{", '{"a": "\\ud800"}']),
        "id": json_values,
    },
)
functions = st.fixed_dictionaries(
    {"type": st.sampled_from(["function", "web_search"]), "name": st.sampled_from(["f", "g", ""])},
    optional={"parameters": json_values, "description": json_values, "strict": json_values},
)
choices = st.sampled_from(
    ["auto", "none", "required", {"type": "function", "name": "f"}]
) | st.fixed_dictionaries(
    {"type": st.just("allowed_tools"), "mode": st.sampled_from(["auto", "required"]), "tools": json_values}
)
likely: dict[str, st.SearchStrategy[Any]] = {
    "input": st.text(max_size=5) | st.lists(items, max_size=4),
    "instructions": st.text(max_size=3),
    "tools": st.lists(functions, max_size=2),
    "tool_choice": choices,
    "parallel_tool_calls": st.booleans(),
    "text": st.fixed_dictionaries({}, optional={"format": json_values, "verbosity": st.just("medium")}),
    "reasoning": st.fixed_dictionaries({}, optional={"effort": st.sampled_from(["none", "high", "odd"])}),
    "include": st.lists(st.sampled_from(["message.output_text.logprobs", "reasoning.encrypted_content"])),
    "top_logprobs": st.integers(0, 3),
    "max_output_tokens": st.integers(-1, 20),
    "metadata": json_values,
    "temperature": st.floats(-0.5, 2.5),
    "stop": st.text(max_size=2),
}
odd = st.dictionaries(st.sampled_from(sorted(likely)), json_values, max_size=1)
bodies = st.builds(
    lambda body, one: {"input": "Hi", **body, **one}, st.fixed_dictionaries({}, optional=likely), odd
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bodies)
def test_any_request_is_answered(http: httpx.Client, body: Any) -> None:
    answer = http.post("/v1/responses", json=body)
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 400:
        error = answer.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert "messages" not in (error["param"] or "")
        return
    lines = http.post("/v1/responses", json={**body, "stream": True}).text.split("\n")
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert plain(events[-1]["response"]) == plain(answer.json())
    built: list[dict[str, Any]] = []
    for event in events[2:-1]:
        build(event, built)
    assert built == events[-1]["response"]["output"]
