"""JSON read by either reader is what Python's json makes of it, or the client's mistake."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.serve.errors import ApiError
from rockledge.serve.http import json_body
from rockledge.serve.http.json_body import parse_json

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def expected(text: bytes) -> Any:
    try:
        return json.loads(text.decode())
    except (ValueError, RecursionError):
        return ApiError


def found(text: bytes) -> Any:
    try:
        return parse_json(text)
    except ApiError:
        return ApiError


@pytest.mark.parametrize("few", [0, 1000])
@given(value=values, ascii_only=st.booleans(), cut=st.integers(0, 10))
def test_both_readers_read_the_same(few: int, value: Any, ascii_only: bool, cut: int) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=cut % 3 or None).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_body, "FEW_VALUES", few)
        for part in (text, text[: len(text) - cut], text + b"]"):
            assert found(part) == expected(part)


@pytest.mark.parametrize("few", [0, 1000])
@pytest.mark.parametrize(
    "text", [b"[" * 5000, b'{"a":' * 5000, b"9" * 5000, b"", b"\xff", b"[1,]", b"nul", b"[NaN"]
)
def test_what_is_not_json_is_the_clients_mistake(
    monkeypatch: pytest.MonkeyPatch, few: int, text: bytes
) -> None:
    monkeypatch.setattr(json_body, "FEW_VALUES", few)
    with pytest.raises(ApiError, match="not valid JSON"):
        parse_json(text)


def test_too_many_brackets_are_too_large() -> None:
    assert parse_json(b"[[],[]]", brackets=3) == [[], []]
    with pytest.raises(ApiError, match="has 4 opening brackets, expected at most 3") as caught:
        parse_json(b"[[],[],{}]", brackets=3)
    assert caught.value.status == 413


@pytest.mark.parametrize("few", [0, 1000])
@pytest.mark.parametrize("text", [b"[NaN]", b"[-Infinity]", b'{"a": 1e400}', b"9" * 5000])
def test_numbers_that_could_not_be_sent_back_are_refused(
    monkeypatch: pytest.MonkeyPatch, few: int, text: bytes
) -> None:
    """Answers repeat what requests hold, as metadata and tools, and must stay JSON."""
    monkeypatch.setattr(json_body, "FEW_VALUES", few)
    with pytest.raises(ApiError, match="number") as caught:
        parse_json(text)
    assert "sys." not in str(caught.value)
