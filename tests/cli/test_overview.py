"""The page of all commands: each has a group and an example that parses."""

import shlex

from rockledge.cli.main import COMMANDS
from rockledge.cli.overview import EXAMPLES, grouped, overview
from rockledge.cli.parser import build_parser, check_words


def test_every_command_is_in_a_group_and_on_the_page() -> None:
    groups = dict(grouped(COMMANDS))
    assert "More" not in groups
    assert sorted(c.name for found in groups.values() for c in found) == sorted(c.name for c in COMMANDS)
    page = overview(COMMANDS)
    for command in COMMANDS:
        assert f"  {command.name} " in page
        assert command.help in page
        assert EXAMPLES[command.name]


def test_examples_are_commands_that_parse() -> None:
    for example in [line for lines in EXAMPLES.values() for line in lines]:
        program, *words = shlex.split(example.split(">")[0].split("<")[0])
        assert program == "rockledge"
        parser = build_parser(COMMANDS)
        check_words(parser, words)
        parser.parse_args(words)
