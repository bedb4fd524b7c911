"""Mistyped words, defaults in help, and values that are refused before anything is loaded."""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rockledge.cli.main import COMMANDS
from rockledge.cli.parser import build_parser, subcommands

Run = Callable[..., Any]


@pytest.mark.parametrize(
    "words, meant",
    [
        (("quantise", "model", "-o", "x"), "quantize"),
        (("quant", "model"), "quantize"),
        (("runs", "model", "hi"), "run"),
        (("run", "model", "hi", "--temprature", "0.5"), "--temperature"),
        (("quantize", "model", "--otput", "x"), "--output"),
        (("run", "model", "hi", "--max_tokens=5"), "--max-tokens"),
        (("npu", "infp"), "info"),
        (("npu", "info", "--drivr", "rknpu"), "--driver"),
        (("help", "serv"), "serve"),
        (("help", "npu", "emulte"), "emulate"),
        (("synth", "135", "-o", "x"), "135m"),
    ],
)
def test_the_nearest_word_is_named(rockledge: Run, words: tuple[str, ...], meant: str) -> None:
    done = rockledge(*words, "--json")
    assert done.code == 2
    assert f"did you mean {meant}?" in done.json["error"]


def test_the_nearest_board_is_named(rockledge: Run, checkpoint: Path, tmp_path: Path) -> None:
    done = rockledge("quantize", checkpoint, "-o", tmp_path / "x", "--fit", "rk3588-8g")
    assert done.code == 2
    assert "did you mean rk3588-8gb?" in done.err


@pytest.mark.parametrize("word", ["zzzz", "--zzzz"])
def test_nothing_is_guessed_where_nothing_is_near(rockledge: Run, word: str) -> None:
    done = rockledge(word)
    assert done.code == 2
    assert word in done.err
    assert "did you mean" not in done.err


@pytest.mark.parametrize(
    "flags, said",
    [
        (("--temperature", "-1"), "'-1' is not a number of at least 0"),
        (("--temperature", "nan"), "'nan' is not a number of at least 0"),
        (("--top-p", "0"), "'0' is not a number above 0 and at most 1"),
        (("--min-p", "1.5"), "'1.5' is not a number of at least 0 and at most 1"),
        (("--ctx", "0"), "write one such as 4096 or 8k"),
        (("--ctx", "8 MB"), "write one such as 4096 or 8k"),
    ],
)
def test_impossible_numbers_are_refused_before_loading(
    rockledge: Run, flags: tuple[str, ...], said: str
) -> None:
    done = rockledge("run", "nowhere", "hi", *flags)
    assert done.code == 2
    assert said in done.err
    assert "nowhere" not in done.err


@pytest.mark.parametrize("port", ["99999", "-1", "http", "65536", "8.0"])
def test_impossible_ports_are_refused_before_loading(rockledge: Run, port: str) -> None:
    done = rockledge("serve", "nowhere", "--port", port)
    assert done.code == 2
    assert "expected 0 (a free one) to 65535" in done.err


def test_a_context_may_have_a_unit(rockledge: Run, artifact: Path) -> None:
    done = rockledge("run", artifact, "Hi", "--ctx", "0.25k", "--max-tokens", 2)
    assert done.code == 0
    assert "cache for 256 tokens" in done.err


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for sub in subcommands(parser).values():
        yield from parsers(sub)


def test_every_flag_with_a_value_shows_its_default() -> None:
    missing = []
    for parser in parsers(build_parser(COMMANDS)):
        for action in parser._actions:
            if not action.option_strings or action.nargs == 0 or action.required:
                continue
            formatter = parser._get_formatter()
            formatter.add_argument(action)
            text = " ".join(formatter.format_help().split())
            if text.count("default") != 1:
                missing.append(f"{parser.prog} {text}")
    assert missing == []


def test_no_help_breaks_on_a_percent_sign() -> None:
    for parser in parsers(build_parser(COMMANDS)):
        assert parser.format_help()
