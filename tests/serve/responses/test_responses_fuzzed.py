"""Whatever items arrive, the answer is an answer or names the client's mistake; streamed or not it is one."""

import json
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serve.responses.test_responses import build, plain
from tests.serve.test_requests_fuzzed import json_values

short = st.text(max_size=3)


def part(kind: str) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({"type": st.just(kind), "text": short})


def content(kind: str) -> st.SearchStrategy[Any]:
    return short | st.lists(part(kind), max_size=2)


def message(role: str, kind: str) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {"role": st.just(role), "content": content(kind)}, optional={"type": st.just("message")}
    )


def item(kind: str, **fields: Any) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({"type": st.just(kind), **fields}, optional={"id": short, "status": short})


arguments = st.sampled_from(["{}", "{", "", "[]", '{"a": 1}'])
items = st.one_of(
    message("user", "input_text"),
    message("developer", "input_text"),
    message("assistant", "output_text"),
    item("function_call", call_id=short, name=st.sampled_from(["f", "g", ""]), arguments=arguments),
    item("function_call_output", call_id=short, output=content("input_text")),
    item("reasoning", summary=st.just([]), content=st.lists(part("reasoning_text"), max_size=2)),
    item("reasoning", summary=st.just([]), encrypted_content=short),
)
odd_items = (
    json_values | item("item_reference") | item("function_call", arguments=json_values) | message("x", "y")
)
functions = st.fixed_dictionaries(
    {"type": st.just("function"), "name": st.sampled_from(["f", "g"])},
    optional={"parameters": st.sampled_from([None, {}, {"type": "object"}]), "strict": st.booleans()},
)
odd_functions = st.fixed_dictionaries(
    {"type": st.sampled_from(["function", "web_search"]), "name": short},
    optional={"parameters": json_values, "description": json_values, "strict": json_values},
)
allowed = {"type": "allowed_tools", "tools": [{"type": "function", "name": "f"}]}
likely: dict[str, st.SearchStrategy[Any]] = {
    "input": short
    | st.builds(
        lambda first, rest: [first, *rest], message("user", "input_text"), st.lists(items, max_size=5)
    ),
    "instructions": short,
    "tools": st.lists(functions, max_size=2, unique_by=lambda tool: tool["name"]),
    "tool_choice": st.sampled_from(
        ["auto", "auto", "none", "required", {"type": "function", "name": "f"}, {**allowed, "mode": "auto"}]
    ),
    "parallel_tool_calls": st.booleans(),
    "text": st.sampled_from([{}, {"format": {"type": "text"}}, {"format": {"type": "json_object"}}]),
    "reasoning": st.sampled_from([{}, {"effort": "none"}, {"effort": "high", "summary": "auto"}]),
    "include": st.just(["message.output_text.logprobs"]),
    "max_output_tokens": st.integers(1, 20) | st.just(-1),
    "metadata": st.dictionaries(short, short, max_size=2),
    "temperature": st.floats(0, 2),
    "stop": st.text(min_size=1, max_size=2),
}
wrong = {
    "input": st.lists(items | odd_items, max_size=3),
    "tools": st.lists(odd_functions, max_size=2),
    "top_logprobs": st.integers(0, 3),
}
# At most one field is anything at all, and that in one request of four.
anything = st.sampled_from(sorted({*likely, *wrong})).flatmap(
    lambda name: st.fixed_dictionaries({name: wrong.get(name, json_values) | json_values})
)
odd = st.just({}) | st.just({}) | st.just({}) | anything
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
