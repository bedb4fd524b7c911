"""Whatever turns arrive, the answer is an answer or names the client's mistake; streamed or not it is one."""

from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serve.anthropic.test_messages import assembled, plain, read_events
from tests.serve.test_requests_fuzzed import json_values

short = st.text(max_size=3)
objects = st.dictionaries(short, json_values, max_size=2)


def block(kind: str, **fields: Any) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({"type": st.just(kind), **fields})


texts = block("text", text=short)
results = block(
    "tool_result", tool_use_id=short, content=short | st.lists(texts, max_size=2), is_error=st.booleans()
)
uses = block("tool_use", id=short, name=st.sampled_from(["f", "g", ""]), input=objects)
thoughts = block("thinking", thinking=short) | block("redacted_thinking", data=short)
odd_blocks = block("image") | block("tool_use") | json_values


def turn(role: str, *blocks: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {"role": st.just(role), "content": short | st.lists(st.one_of(blocks), max_size=3)}
    )


turns = turn("user", texts, results) | turn("assistant", texts, uses, thoughts)
odd_turns = turn("user", texts, odd_blocks) | turn("assistant", odd_blocks) | turn("system", texts)
schemas = st.just({"type": "object"}) | st.just({})
tools = st.fixed_dictionaries({"name": st.sampled_from(["f", "g"]), "input_schema": schemas})
odd_tools = st.fixed_dictionaries(
    {"name": short, "input_schema": json_values}, optional={"type": json_values}
)
choices = st.sampled_from(
    [
        {"type": "auto"},
        {"type": "none"},
        {"type": "auto", "disable_parallel_tool_use": True},
        {"type": "any"},
        {"type": "tool", "name": "f"},
    ]
)
thinking = st.sampled_from(
    [
        {"type": "enabled", "budget_tokens": 2},
        {"type": "disabled"},
        {"type": "adaptive"},
        {"type": "adaptive", "display": "omitted"},
    ]
)
likely: dict[str, st.SearchStrategy[Any]] = {
    "messages": st.builds(
        lambda first, rest: [first, *rest], turn("user", texts), st.lists(turns, max_size=4)
    ),
    "system": short | st.lists(texts, max_size=2),
    "tools": st.lists(tools, max_size=2, unique_by=lambda tool: tool["name"]),
    "tool_choice": choices,
    "thinking": thinking,
    "output_config": st.sampled_from([{"effort": "low"}, {"effort": "max"}, {}]),
    "stop_sequences": st.lists(st.text(min_size=1, max_size=2), max_size=2),
    "max_tokens": st.integers(3, 30) | st.just(-1),
    "temperature": st.floats(0, 1),
    "metadata": json_values,
}
wrong = {"messages": st.lists(turns | odd_turns, max_size=3), "tools": st.lists(odd_tools, max_size=2)}
# At most one field is anything at all, and that in one request of four.
anything = st.sampled_from(sorted(likely)).flatmap(
    lambda name: st.fixed_dictionaries({name: wrong.get(name, json_values) | json_values})
)
odd = st.just({}) | st.just({}) | st.just({}) | anything
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
