"""Whatever turns arrive, the answer is an answer or names the client's mistake; streamed or not it is one."""

from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serve.anthropic.test_messages import assembled, plain, read_events
from tests.serve.test_requests_fuzzed import json_values

blocks = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["text", "tool_use", "tool_result", "thinking", "redacted_thinking", "image", 3, None]
        )
    },
    optional={
        "text": st.text(max_size=3),
        "thinking": st.text(max_size=3),
        "id": st.text(max_size=2),
        "tool_use_id": st.text(max_size=2),
        "name": st.sampled_from(["f", "g", ""]),
        "input": json_values,
        "content": st.text(max_size=3) | json_values,
        "is_error": st.booleans(),
    },
)
turns = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "user", "assistant", "system"])},
    optional={"content": st.text(max_size=4) | st.lists(blocks, max_size=3) | json_values},
)
tools = st.fixed_dictionaries(
    {"name": st.sampled_from(["f", "g", ""]), "input_schema": json_values | st.just({"type": "object"})},
    optional={"type": st.sampled_from(["custom", "bash_20250124"]), "description": json_values},
)
choices = st.fixed_dictionaries(
    {"type": st.sampled_from(["auto", "any", "tool", "none"])},
    optional={"name": st.just("f"), "disable_parallel_tool_use": st.booleans()},
)
thinking = st.fixed_dictionaries(
    {"type": st.sampled_from(["enabled", "disabled", "adaptive"])},
    optional={"budget_tokens": st.integers(0, 30), "display": st.sampled_from(["omitted", "summarized"])},
)
likely: dict[str, st.SearchStrategy[Any]] = {
    "messages": st.lists(turns, max_size=4),
    "system": st.text(max_size=3) | st.lists(blocks, max_size=2),
    "tools": st.lists(tools, max_size=2),
    "tool_choice": choices,
    "thinking": thinking,
    "output_config": json_values,
    "stop_sequences": st.lists(st.text(max_size=2), max_size=2),
    "max_tokens": st.integers(-1, 30),
    "temperature": st.floats(-0.5, 2.5),
    "metadata": json_values,
}
odd = st.dictionaries(st.sampled_from(sorted(likely)), json_values, max_size=1)
bodies = st.builds(
    lambda body, one: {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20, **body, **one},
    st.fixed_dictionaries({}, optional=likely),
    odd,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bodies)
def test_any_request_is_answered(http: httpx.Client, body: Any) -> None:
    answer = http.post("/v1/messages", json=body)
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 400:
        assert answer.json()["error"]["type"] == "invalid_request_error"
        return
    events = read_events(http.post("/v1/messages", json={**body, "stream": True}).text)
    assert plain(assembled(events)) == plain(answer.json())
    shared = ("messages", "system", "tools", "tool_choice", "thinking", "output_config")
    counted = http.post(
        "/v1/messages/count_tokens", json={name: body[name] for name in shared if name in body}
    )
    used = answer.json()["usage"]
    assert counted.json() == {"input_tokens": used["input_tokens"] + used["cache_read_input_tokens"]}
