"""Answers of a given form: what ends by itself fits, and what cannot be used is refused in one sentence."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.runtime.artifacts import BOS, EOS
from tests.runtime.constraints.schemas import TEXTS, schemas

from rockledge.errors import UsageError
from rockledge.runtime.constraints.constraint import Constraint, check_constraint
from rockledge.runtime.engine import Engine
from rockledge.runtime.request import Request
from rockledge.runtime.sampling import Sampling

ArtifactPath = Callable[[str], Path]

FEW, MANY = 20, 200
PROMPT = (BOS, 65, 66)


@pytest.fixture(scope="module")
def model(artifact_path: ArtifactPath) -> Iterator[Engine]:
    with Engine.load(artifact_path("rotated-tied"), threads=1, ctx=1000) as engine:
        yield engine
        assert engine.free_pages == engine.pages


def answer(model: Engine, constraint: Constraint, seed: int = 0, **fields: Any) -> tuple[str, str]:
    """Text and finish."""
    fields = {"max_tokens": 700, "sampling": Sampling(temperature=1.0, seed=seed), **fields}
    pieces = list(model.generate(PROMPT, constraint=constraint, **fields))
    finish = pieces[-1].finish
    assert finish is not None
    return "".join(piece.text for piece in pieces), finish


def usable(schema: object) -> Constraint | None:
    """Its constraint; None for one that is refused, in one sentence."""
    constraint = Constraint("json_schema", json.dumps(schema))
    try:
        check_constraint(constraint)
    except UsageError as error:
        assert_sentence(str(error))
        return None
    return constraint


def assert_sentence(message: str) -> None:
    assert "\n" not in message
    assert len(message) < 400
    assert not message.endswith(".")


def check_schema(model: Engine, schema: Any, seed: int, bounded: bool) -> None:
    constraint = usable(schema)
    if constraint is None:
        return
    try:
        text, finish = answer(model, constraint, seed)
    except UsageError as error:
        if bounded or "too complex to go on" not in str(error):
            raise
        return  # nested hundreds of levels deep, where nothing bounds it
    if finish == "stop":
        jsonschema.Draft202012Validator(schema).validate(json.loads(text))
    else:
        assert finish == "length"
        assert not bounded


def on_schemas(count: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=count, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
    )


@on_schemas(FEW)
@given(schemas(), st.integers(0, 9))
def test_an_answer_that_ends_by_itself_fits_its_schema(model: Engine, schema: Any, seed: int) -> None:
    check_schema(model, schema, seed, bounded=False)


@on_schemas(FEW)
@given(schemas(bounded=True), st.integers(0, 9))
def test_an_answer_of_bounded_length_ends_by_itself(model: Engine, schema: Any, seed: int) -> None:
    check_schema(model, schema, seed, bounded=True)


@pytest.mark.slow
@on_schemas(MANY)
@given(schemas(), st.integers(0, 9))
def test_answers_fit_two_hundred_schemas(model: Engine, schema: Any, seed: int) -> None:
    check_schema(model, schema, seed, bounded=False)


@pytest.mark.slow
@on_schemas(MANY)
@given(schemas(bounded=True), st.integers(0, 9))
def test_answers_to_two_hundred_bounded_schemas_end(model: Engine, schema: Any, seed: int) -> None:
    check_schema(model, schema, seed, bounded=True)


def test_most_schemas_at_random_are_usable() -> None:
    """Or the tests above would say nothing."""
    found = []

    @on_schemas(100)
    @given(schemas())
    def ask(schema: Any) -> None:
        found.append(usable(schema) is not None)

    ask()
    assert np.mean(found) > 0.7


RANGES = [(-3, 2), (-1, 0), (0, 1), (0, 0.5), (0.5, 2.25), (1, 1.5), (-0.25, 0), (-1000, -10)]
EDGES = [
    "0",
    "-0",
    "0.0",
    "1",
    "1.0",
    "-1",
    "-1.0",
    "0.5",
    "0.50",
    "2",
    "2.25",
    "-0.25",
    "-3",
    "-10",
    "-1000",
]


@pytest.mark.parametrize("least", ["minimum", "exclusiveMinimum"])
@pytest.mark.parametrize("most", ["maximum", "exclusiveMaximum"])
@pytest.mark.parametrize("bounds", RANGES)
def test_a_number_keeps_to_its_bounds(least: str, most: str, bounds: tuple[float, float]) -> None:
    """llguidance takes a bound that is excluded in some ranges; those are refused."""
    schema = {"type": "number", least: bounds[0], most: bounds[1]}
    constraint = usable(schema)
    if constraint is None:
        assert "exclusive" in least + most
        return
    from rockledge.runtime.constraints.constraint import _bytes_as_tokens, compile_constraint

    for text in EDGES:
        matcher = compile_constraint(constraint, _bytes_as_tokens)
        taken = matcher.try_consume_tokens(list(text.encode())) == len(text) and matcher.is_accepting()
        assert not taken or jsonschema.Draft202012Validator(schema).is_valid(json.loads(text))


@given(st.lists(TEXTS, min_size=1, max_size=5), st.integers(0, 9))
@on_schemas(FEW)
def test_a_choice_is_one_of_them(model: Engine, choices: list[str], seed: int) -> None:
    text, finish = answer(model, Constraint("choice", json.dumps(choices)), seed)
    assert (text, finish) in [(choice, "stop") for choice in choices]


@pytest.mark.parametrize(
    "constraint, pattern",
    [
        (Constraint("regex", r"[a-c]{2,5}(x|y)+z"), r"[a-c]{2,5}(x|y)+z"),
        (Constraint("regex", "^(ab|cd)$"), "ab|cd"),
        (Constraint("lark", 'start: "<" word ">"\nword: /[a-f]{1,8}/'), "<[a-f]{1,8}>"),
        (Constraint("gbnf", 'root ::= "<" word ">"\nword ::= [a-f]{1,8}'), "<[a-f]{1,8}>"),
    ],
)
def test_an_answer_fits_its_expression(model: Engine, constraint: Constraint, pattern: str) -> None:
    check_constraint(constraint)
    for seed in range(5):
        text, finish = answer(model, constraint, seed)
        assert finish == "stop"
        assert re.fullmatch(pattern, text)


def test_a_json_object_is_one(model: Engine) -> None:
    found = [answer(model, Constraint("json"), seed) for seed in range(8)]
    assert any(finish == "stop" for _, finish in found)
    assert all(isinstance(json.loads(text), dict) for text, finish in found if finish == "stop")


FORCED = {
    "type": "object",
    "properties": {"first name": {"enum": ["Ann", "Anton"]}, "some long key": {"type": "boolean"}},
    "required": ["first name", "some long key"],
    "additionalProperties": False,
}


def test_forced_tokens_ride_along_and_are_scored(model: Engine) -> None:
    """An answer of few choices takes few steps, and every token has the score that a reading gives it."""
    constraint = Constraint("json_schema", json.dumps(FORCED))
    plain = answer(model, constraint)[0]
    before = model.stats().steps
    pieces = list(
        model.generate(
            PROMPT,
            max_tokens=200,
            sampling=Sampling(temperature=1.0, seed=0),
            logprobs=2,
            constraint=constraint,
        )
    )
    steps = model.stats().steps - before
    ids = [token for piece in pieces for token in piece.ids]
    assert "".join(piece.text for piece in pieces) == plain
    assert len(ids) == len(plain)  # the tokenizer's tokens are bytes
    assert steps < len(ids) / 3
    scores = model.score([*PROMPT, *ids], 2)[len(PROMPT) - 1 :]
    assert [x for piece in pieces for x in piece.logprobs or ()] == [score.logprob for score in scores]
    assert [x for piece in pieces for x in piece.top or ()] == [score.top for score in scores]


def test_forced_tokens_that_are_in_the_cache_are_scored_all_the_same(model: Engine) -> None:
    """Their rows are computed again: only the scores are missing, and no cache keeps those."""
    constraint = Constraint("json_schema", json.dumps({"const": "cached " * 20}))

    def told() -> list[object]:
        pieces = list(model.generate(PROMPT, max_tokens=200, constraint=constraint, logprobs=1))
        return [piece.finish for piece in pieces[-1:]] + [
            (token, logprob)
            for piece in pieces
            for token, logprob in zip(piece.ids, piece.logprobs or (), strict=True)
        ]

    first = told()
    answer(model, constraint)
    list(model.generate([*PROMPT, *b"aa"], max_tokens=2))
    assert len(first) == 143
    assert told() == first


@pytest.mark.parametrize("logprobs", [None, 0])
def test_a_cut_answer_says_length(model: Engine, logprobs: int | None) -> None:
    constraint = Constraint("json_schema", json.dumps({"const": "x" * 60}))
    for most in (1, 5, 61):
        pieces = list(model.generate(PROMPT, max_tokens=most, constraint=constraint, logprobs=logprobs))
        assert "".join(piece.text for piece in pieces) == ('"' + "x" * 60)[:most]
        assert pieces[-1].finish == "length"
    text, finish = answer(model, constraint, max_tokens=62, logprobs=logprobs)
    assert (text, finish) == ('"' + "x" * 60 + '"', "stop")


def test_a_stop_string_cuts_forced_text(model: Engine) -> None:
    constraint = Constraint("json_schema", json.dumps({"const": "one two three"}))
    for logprobs in (None, 0):
        assert answer(model, constraint, stop=("two",), logprobs=logprobs) == ('"one ', "stop")


def test_the_end_comes_only_where_the_grammar_allows(model: Engine) -> None:
    """However much it is wanted; and where it is not wanted, the rest of the grammar comes."""
    wanted = Sampling(logit_bias=((EOS, 100.0),))
    assert answer(model, Constraint("regex", "[ab]{3,9}"), sampling=wanted)[0].__len__() == 3
    text, finish = answer(model, Constraint("regex", "[ab]{3,9}"), sampling=wanted, ignore_eos=True)
    assert (len(text), finish) == (9, "stop")


@pytest.mark.parametrize("repeated, other", ["ab", "ba"])
def test_penalties_count_forced_tokens(model: Engine, repeated: str, other: str) -> None:
    constraint = Constraint("regex", f"{repeated}{{60}}[ab]")
    text, finish = answer(model, constraint, sampling=Sampling(frequency_penalty=2.0))
    assert (text, finish) == (repeated * 60 + other, "stop")


BAD = [
    ({"type": "string", "not": {"const": "a"}}, "'not'"),
    ({"type": "array", "uniqueItems": True, "contains": {}}, "'contains' and 'uniqueItems'"),
    ({"type": "object", "x-guidance": {"lenient": True}, "if": {}}, "'x-guidance'"),
    ({"type": "string", "pattern": "^(?!b)a$"}, "look-around"),
    ({"type": "string", "format": "weird"}, "weird"),
    ({"type": "integer", "minimum": 5, "maximum": 3}, "minimum (5) is greater"),
    ({"type": "string", "pattern": "^a", "format": "date"}, "no string fits"),
    ({"enum": []}, "empty"),
    (False, "false"),
    ([1], "object"),
    ({"type": "strng"}, "strng"),
    ({"$ref": "#"}, "leads to itself"),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "leads to itself"),
    # Nobody says what fits these, and validators never end.
    ({"anyOf": [{"$ref": "#"}, {"type": "null"}]}, "reference '#'"),
    (
        {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}}},
        "'#/$defs/a' of the JSON schema leads to itself",
    ),
    (
        {
            "type": "object",
            "properties": {"x": {"$ref": "#/$defs/a"}},
            "$defs": {
                "a": {"oneOf": [{"type": "null"}, {"allOf": [{"$ref": "#/$defs/b"}]}]},
                "b": {"anyOf": [{"type": "boolean"}, {"$ref": "#/$defs/a"}]},
            },
        },
        "leads to itself",
    ),
    (
        {
            "type": "object",
            "properties": {"s": {"type": "string"}, "next": {"$ref": "#"}},
            "required": ["next", "s"],
        },
        "endless",
    ),
    ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, "endless"),
    ({"$ref": "https://example.com/schema.json"}, "example.com"),
    ({"enum": [f"value {number}" for number in range(100_000)]}, "bytes"),
    ({"type": "array", "items": {"const": 1}, "minItems": 100_000}, "too complex"),
    ({"allOf": [{"anyOf": [{"const": i}, {"const": -i}]} for i in range(18)]}, "JSON schema"),
    ({"allOf": [{"type": "integer", "multipleOf": p} for p in (1000003, 1000033, 1000037)]}, "JSON schema"),
    ({"type": "object", "properties": {f"p{i}": {"type": "null"} for i in range(2000)}}, "too complex"),
    # Joined patterns took minutes and gigabytes.
    ({"allOf": [{"type": "string", "pattern": f".*a{{{i}}}.*b"} for i in range(60)]}, "60 'pattern'"),
    (
        {
            "$ref": "#/$defs/d0",
            "$defs": {
                f"d{i}": {"pattern": f".*a{{{i}}}.*b", "type": "string", "$ref": f"#/$defs/d{i + 1}"}
                for i in range(20)
            }
            | {"d20": {"format": "uri"}},
        },
        "21 'pattern'",
    ),
    (
        {
            "allOf": [
                {"properties": {"a": {"type": "string", "pattern": f".*a{{{i}}}.*b"}}} for i in range(16)
            ]
        },
        "16 'pattern'",
    ),
]


@pytest.mark.parametrize("schema, named", BAD, ids=[named for _, named in BAD])
def test_a_bad_schema_is_refused_in_one_sentence(schema: object, named: str) -> None:
    with pytest.raises(UsageError) as error:
        check_constraint(Constraint("json_schema", json.dumps(schema)))
    assert_sentence(str(error.value))
    assert named in str(error.value)


@pytest.mark.parametrize(
    "constraint, named",
    [
        (Constraint("json_schema", "{"), "not JSON"),
        (Constraint("json_schema", "[" * 20_000), "deep"),
        (Constraint("json_schema", '{"items":' * 5_000 + "{}" + "}" * 5_000), "deep"),
        (Constraint("regex", "(?=a)b"), "look-ahead"),
        (Constraint("regex", r"(a)\1"), "backreferences"),
        (Constraint("regex", "(" * 20_000), "regular expression"),
        (Constraint("lark", "start: foo"), "foo"),
        (Constraint("lark", "start: start"), "never ends"),
        (Constraint("lark", "start: <|im_end|>"), "im_end"),
        (Constraint("lark", "start: %json {}"), "%json"),
        (Constraint("lark", "start: " + "(" * 20_000), "grammar"),
        (Constraint("lark", "\n".join(f"r{i}: r{i + 1}" for i in range(5_000))), "rules"),
        (Constraint("gbnf", "root ::= (("), "grammar"),
        (Constraint("gbnf", "root ::= " + "(" * 20_000), "grammar"),
        (Constraint("choice", "[]"), "at least one"),
        (Constraint("choice", "[1]"), "string"),
    ],
)
def test_bad_text_is_refused_in_one_sentence(model: Engine, constraint: Constraint, named: str) -> None:
    with pytest.raises(UsageError) as error:
        check_constraint(constraint)
    assert_sentence(str(error.value))
    assert named in str(error.value)
    with pytest.raises(UsageError):
        answer(model, constraint)


def test_a_grammar_that_becomes_too_complex_fails_alone(model: Engine) -> None:
    """Catastrophic expressions cost their own request; each mask is bounded."""
    constraint = Constraint("json_schema", json.dumps({"type": "string", "pattern": ".*a.{500}"}))
    sampling = Sampling(temperature=1.0, seed=1)
    model.submit(Request("bad", PROMPT, max_tokens=300, sampling=sampling, constraint=constraint))
    model.submit(Request("good", PROMPT, max_tokens=100, ignore_eos=True))
    outputs = []
    while not model.idle:
        outputs += model.step()
    last = {output.request: output for output in outputs if output.last}
    assert last["good"].piece is not None
    failure = last["bad"].failure
    if failure is None:
        assert last["bad"].piece is not None
    else:
        assert failure.kind == "usage"
        assert_sentence(failure.message)


def test_a_schema_may_lead_to_itself_by_properties_and_items(model: Engine) -> None:
    tree = {
        "type": "object",
        "properties": {
            "leaves": {"type": "array", "items": {"$ref": "#"}, "maxItems": 1},
            "left": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/same"}]},
            "$ref": {"type": "null"},
        },
        "required": ["left"],
        "additionalProperties": False,
        "$defs": {"same": {"$ref": "#"}},
    }
    for seed in range(6):
        check_schema(model, tree, seed, bounded=False)
    assert usable(tree) is not None


DEEP = """
import json, sys
from rockledge.errors import UsageError
from rockledge.runtime.constraints.constraint import Constraint, check_constraint
for count in (1000, 1300, 3000):
    defs = {f"d{i}": {"items": {"$ref": f"#/$defs/d{i + 1}"}} for i in range(count)}
    schema = {"$ref": "#/$defs/d0", "$defs": {**defs, f"d{count}": {}}}
    try:
        check_constraint(Constraint("json_schema", json.dumps(schema)))
    except UsageError as error:
        print(error)
for count in (900, 5000):
    rules = "\\n".join(f"r{i}: r{i + 1}" for i in range(count))
    try:
        check_constraint(Constraint("lark", f"start: r0\\n{rules}\\nr{count}: \\"a\\""))
    except UsageError as error:
        print(error)
print("alive")
"""


def test_long_chains_of_references_do_not_end_the_process() -> None:
    """llguidance follows them by recursion, without a limit of its own."""
    done = subprocess.run(
        [sys.executable, "-c", DEEP], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "alive"


def test_requests_that_cannot_have_a_form(model: Engine) -> None:
    with pytest.raises(UsageError, match="kind"):
        model.submit(Request("s", PROMPT, kind="score", constraint=Constraint("json")))


def test_without_llguidance_there_is_a_sentence(model: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(UsageError, match=r"pip install 'rockledge\[grammar\]'"):
        model.submit(Request("s", PROMPT, constraint=Constraint("json")))


def test_a_request_can_end_while_its_grammar_is_compiled(model: Engine) -> None:
    model.submit(Request("c", PROMPT, constraint=Constraint("json")))
    model.cancel("c")
    while not model.idle:
        model.step()
