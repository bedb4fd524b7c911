"""Bodies that are not JSON are refused by what they say they are: the way of forged forms."""

from typing import Any

import httpx
import pytest

BODY = b'{"prompt": "Hi", "max_tokens": 2}'


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "text/plain;charset=UTF-8",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain; application/json",
        "application/jsonx",
        "application/json; charset=utf-16",
        "json",
    ],
)
def test_a_form_that_looks_like_json_is_not_read(http: httpx.Client, engine: Any, content_type: str) -> None:
    answer = http.post("/v1/completions", content=BODY, headers={"Content-Type": content_type})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")
    assert "application/json" in answer.json()["error"]["message"]
    assert not engine.requests


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON; charset=UTF-8", "application/vnd.api+json", ""]
)
def test_json_is_read_and_programs_may_leave_the_type_out(http: httpx.Client, content_type: str) -> None:
    answer = http.post("/v1/completions", content=BODY, headers={"Content-Type": content_type})
    assert answer.status_code == 200


def test_a_page_has_to_say_it(http: httpx.Client) -> None:
    own = {"Origin": str(http.base_url).rstrip("/")}
    assert http.post("/v1/completions", content=BODY, headers=own).status_code == 415


def test_a_second_type_does_not_hide_the_first(http: httpx.Client) -> None:
    headers = [("Content-Type", "text/plain"), ("Content-Type", "application/json")]
    assert http.post("/v1/completions", content=BODY, headers=headers).status_code == 415
