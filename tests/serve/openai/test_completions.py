"""`/v1/completions` over a scripted engine: prompts of every kind, echo, log-likelihoods."""

import json
from typing import Any

import httpx
import pytest
from tests.serve.conftest import CONTEXT


def complete(http: httpx.Client, **body: Any) -> Any:
    response = http.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_text_prompt_gets_bos_and_sixteen_tokens_by_default(http: httpx.Client, engine: Any) -> None:
    engine.script = "abcdefghijklmnopqrstuvwxyz"
    answer = complete(http, prompt="Hi")
    assert answer["object"] == "text_completion"
    [choice] = answer["choices"]
    assert choice == {"index": 0, "text": "abcdefghijklmnop", "logprobs": None, "finish_reason": "length"}
    assert list(engine.requests[0].prompt) == [256, 72, 105]
    assert answer["usage"]["total_tokens"] == 3 + 16


def test_token_ids_are_taken_as_they_are(http: httpx.Client, engine: Any) -> None:
    complete(http, prompt=[72, 105])
    assert list(engine.requests[0].prompt) == [72, 105]


@pytest.mark.parametrize("prompt", [["a", "bc"], [[97], [98, 99]]])
def test_a_batch_gives_a_choice_for_each_prompt(http: httpx.Client, engine: Any, prompt: Any) -> None:
    answer = complete(http, prompt=prompt, max_tokens=3)
    assert [(choice["index"], choice["text"]) for choice in answer["choices"]] == [(0, "Hel"), (1, "Hel")]
    assert [bytes(asked.prompt[-1:]) for asked in engine.requests] == [b"a", b"c"]
    assert answer["usage"]["completion_tokens"] == 6


def test_echo_and_logprobs_with_no_new_tokens_score_the_prompt(http: httpx.Client, engine: Any) -> None:
    answer = complete(http, prompt=[72, 105, 33], max_tokens=0, echo=True, logprobs=1)
    [choice] = answer["choices"]
    assert choice["text"] == "Hi!"
    assert choice["finish_reason"] == "length"
    assert choice["logprobs"] == {
        "tokens": ["H", "i", "!"],
        "token_logprobs": [None, -0.5, -0.5],
        "top_logprobs": [None, {"i": -0.5}, {"!": -0.5}],
        "text_offset": [0, 1, 2],
    }
    assert answer["usage"]["total_tokens"] == 3
    assert [request.kind for request in engine.requests] == ["score"]


def test_echo_goes_on_with_the_generated_tokens(http: httpx.Client) -> None:
    [choice] = complete(http, prompt="Hi", max_tokens=2, echo=True, logprobs=2)["choices"]
    assert choice["text"] == "HiHe"
    scores = choice["logprobs"]
    assert scores["tokens"] == ["<s>", "H", "i", "H", "e"]
    assert scores["token_logprobs"] == [None, -0.5, -0.5, 0.0, -1.0]
    assert scores["text_offset"] == [0, 0, 1, 2, 3]
    assert scores["top_logprobs"][-1] == {"e": -1.0, "~": -9.0}


def test_echo_without_logprobs_is_only_text(http: httpx.Client) -> None:
    [choice] = complete(http, prompt="Hi", max_tokens=0, echo=True)["choices"]
    assert (choice["text"], choice["logprobs"]) == ("Hi", None)


def test_no_tokens_and_no_echo_is_an_empty_answer(http: httpx.Client) -> None:
    [choice] = complete(http, prompt="Hi", max_tokens=0)["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("", "length")


def test_logprobs_zero_names_the_token_alone(http: httpx.Client) -> None:
    [choice] = complete(http, prompt="Hi", max_tokens=1, logprobs=0)["choices"]
    assert choice["logprobs"]["top_logprobs"] == [{"H": 0.0}]


def test_pieces_of_characters_keep_different_names(http: httpx.Client) -> None:
    [choice] = complete(http, prompt=list("é".encode()), max_tokens=0, echo=True, logprobs=0)["choices"]
    assert choice["text"] == "é"
    assert choice["logprobs"]["tokens"] == ["bytes:\\xc3", "bytes:\\xa9"]
    assert choice["logprobs"]["text_offset"] == [0, 0]


def test_a_stream_of_a_batch_ends_every_choice(http: httpx.Client) -> None:
    body = {"prompt": ["a", "b"], "max_tokens": 2, "stream": True, "stream_options": {"include_usage": True}}
    lines = [line for line in http.post("/v1/completions", json=body).text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    *chunks, last = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    for index in (0, 1):
        mine = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == index]
        assert "".join(choice["text"] for choice in mine) == "He"
        assert [choice["finish_reason"] for choice in mine][-1] == "length"
    assert last["usage"]["completion_tokens"] == 4


def test_an_empty_prompt_begins_with_bos(http: httpx.Client, engine: Any) -> None:
    complete(http, prompt="")
    assert list(engine.requests[0].prompt) == [256]


@pytest.mark.parametrize(
    "body, param",
    [
        ({}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [[1], "a"]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": [1, 258]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": {"text": "a"}}, "prompt"),
        ({"prompt": "a", "logprobs": 21}, "logprobs"),
        ({"prompt": "a", "logprobs": True}, "logprobs"),
        ({"prompt": "a", "echo": 1}, "echo"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "best_of": 0}, "best_of"),
        ({"prompt": ["a"] * 1025, "n": 2}, "n"),
        ({"prompt": "a", "messages": []}, "messages"),
    ],
)
def test_bad_requests_name_the_field(http: httpx.Client, engine: Any, body: Any, param: str) -> None:
    response = http.post("/v1/completions", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert engine.requests == []


def test_the_whole_context_can_be_scored_but_not_continued(http: httpx.Client, engine: Any) -> None:
    full = [97] * CONTEXT
    complete(http, prompt=full, max_tokens=0, echo=True, logprobs=0)
    for prompt, max_tokens in ((full, 1), ([*full, 97], 0)):
        response = http.post("/v1/completions", json={"prompt": prompt, "max_tokens": max_tokens})
        assert response.status_code == 400
        assert response.json()["error"]["code"] == "context_length_exceeded"


def test_the_answer_ends_where_the_context_does(http: httpx.Client, engine: Any) -> None:
    [choice] = complete(http, prompt=[97] * (CONTEXT - 3), max_tokens=50)["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("Hel", "length")


def test_prompts_of_one_call_run_at_once(http: httpx.Client, engine: Any) -> None:
    engine.pace = 0.002
    complete(http, prompt=["a", "b", "c"], n=2, max_tokens=3)
    assert engine.most_active == 6


def test_choices_go_prompt_by_prompt(http: httpx.Client, engine: Any) -> None:
    engine.script = "Hi"
    answer = complete(http, prompt=["a", "b"], n=2, echo=True)
    assert [(c["index"], c["text"]) for c in answer["choices"]] == [
        (0, "aHi"),
        (1, "aHi"),
        (2, "bHi"),
        (3, "bHi"),
    ]
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (4, 8)


def test_the_best_of_a_scored_prompt_comes_after_it(http: httpx.Client) -> None:
    answer = complete(http, prompt="Hi", best_of=3, seed=1, echo=True, logprobs=0, max_tokens=1)
    [choice] = answer["choices"]
    assert choice["text"] == "HiH"
    assert choice["logprobs"]["token_logprobs"] == [None, -0.5, -0.5, 3.0]


def test_one_token_has_nothing_to_score(http: httpx.Client, engine: Any) -> None:
    [choice] = complete(http, prompt=[72], max_tokens=0, echo=True, logprobs=1)["choices"]
    assert choice["logprobs"]["token_logprobs"] == [None]
    assert engine.requests == []


def test_a_client_that_leaves_ends_scoring(http: httpx.Client, engine: Any) -> None:
    engine.pace = 0.5
    body = {"prompt": [72] * 60, "max_tokens": 0, "echo": True, "logprobs": 1}
    with pytest.raises(httpx.ReadTimeout):
        http.post("/v1/completions", json=body, timeout=0.2)
    engine.pace = 0.0
    complete(http, prompt="Hi", max_tokens=1)
    assert engine.cancelled or engine.idle
