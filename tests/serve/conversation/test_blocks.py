"""Answers as blocks: the same however they are cut, with the scores of their text."""

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.serve.conversation.test_answer_reader import HERMES_NOW, HERMES_PARIS, PARIS

from rockledge.serve.conversation.answer_reader import AnswerShape
from rockledge.serve.conversation.blocks import BlockReader, Step
from rockledge.serve.conversation.call_forms import HERMES
from rockledge.serve.conversation.reasoning import Thoughts
from rockledge.serve.parts import Part, ScoredToken

SHAPE = AnswerShape(thoughts=Thoughts("<think>", "</think>"), form=HERMES, tools={"weather": {}, "time": {}})
SCRIPTS = st.lists(
    st.sampled_from(
        [
            "<think>",
            "</think>",
            "Hm",
            " ",
            "\n",
            "text",
            HERMES_NOW,
            HERMES_PARIS,
            "<tool_call>",
            "{]",
            "<tool",
        ]
    ),
    max_size=8,
).map("".join)


def parts_of(script: str, cuts: list[int], finish: str) -> list[Part]:
    """An answer cut into parts, each character a token with its place as its id."""
    places = sorted({0, len(script), *(cut % (len(script) + 1) for cut in cuts)})
    parts = [
        Part(0, script[a:b], tuple(ScoredToken(i, -1.0, ()) for i in range(a, b)), b - a, None)
        for a, b in itertools.pairwise(places)
    ]
    return [*parts, Part(0, "", (), 0, finish)]


def read(parts: list[Part]) -> tuple[BlockReader, list[Step]]:
    reader = BlockReader(SHAPE)
    return reader, [step for part in parts for step in reader.push(part)]


def plain(reader: BlockReader) -> list[Any]:
    return [(block.kind, block.number, block.text, block.call, block.cut) for block in reader.blocks]


@given(SCRIPTS, st.lists(st.integers(0, 999), max_size=12), st.sampled_from(["stop", "length"]))
def test_blocks_do_not_depend_on_the_cuts(script: str, cuts: list[int], finish: str) -> None:
    reader, steps = read(parts_of(script, cuts, finish))
    assert plain(reader) == plain(read(parts_of(script, [], finish))[0])
    kinds: dict[int, list[str]] = {}
    for step in steps:
        kinds.setdefault(step.block.number, []).append(step.kind)
    assert list(kinds) == list(range(len(reader.blocks)))
    for block in reader.blocks:
        assert kinds[block.number][0] == "open"
        assert kinds[block.number][-1] == "close"
        grown = [step for step in steps if step.block is block and step.kind == "grow"]
        assert len(grown) == len(kinds[block.number]) - 2 > 0
        assert "".join(step.text for step in grown) == block.text
        assert [token for step in grown for token in step.tokens] == block.tokens
        assert block.cut <= (finish == "length" and block is reader.blocks[-1])
    assert (reader.finish, reader.called) == (finish, any(block.call for block in reader.blocks))


@given(SCRIPTS)
def test_scores_of_text_are_those_of_its_characters(script: str) -> None:
    """With a part for each character, so that none belongs to two blocks."""
    reader, _ = read(parts_of(script, list(range(len(script))), "stop"))
    places = [token.id for block in reader.blocks for token in block.tokens]
    assert places == sorted(set(places))
    for block in reader.blocks:
        scored = "".join(script[token.id] for token in block.tokens)
        if block.kind == "text":
            assert block.text in scored
        else:
            assert not scored


def test_thoughts_text_and_calls_in_turn() -> None:
    script = f"<think>Hm</think>Yes\n{HERMES_PARIS} and"
    reader, _ = read(parts_of(script, list(range(len(script))), "length"))
    thoughts, text, call, rest = reader.blocks
    assert (thoughts.text, text.text, rest.text) == ("Hm", "Yes\n", " and")
    assert call.call is not None
    assert (call.call.name, call.call.arguments) == PARIS
    assert [block.cut for block in reader.blocks] == [False, False, False, True]
    assert len("Hm") <= reader.thought_tokens <= len("<think>Hm</think>")
