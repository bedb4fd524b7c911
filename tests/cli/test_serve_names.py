"""What models are called by their own names and by `--alias`."""

import pytest

from rockledge.cli.serve_names import Names, names_of
from rockledge.errors import UsageError


def test_a_single_model_takes_any_alias() -> None:
    assert names_of(["m.gguf"], ["m"], ["a", "b=m", "c=m.gguf", "x=y", "a", "m"]) == [
        Names("m", ("a", "b", "c", "x=y"))
    ]


def test_of_several_an_alias_says_whose_it_is() -> None:
    typed, own = ["dir/one", "two.gguf"], ["one", "two"]
    assert names_of(typed, own, ["a=two", "b=dir/one", "c=two.gguf"]) == [
        Names("one", ("b",)),
        Names("two", ("a", "c")),
    ]


@pytest.mark.parametrize("alias", ["a", "a=three", "=one", "a=", "a=b=one"])
def test_an_alias_of_no_model_is_refused(alias: str) -> None:
    with pytest.raises(UsageError, match=r"--alias .* names no model that is served"):
        names_of(["one", "two"], ["one", "two"], [alias])


def test_models_of_one_name_go_by_their_aliases() -> None:
    typed, own = ["a/m", "b/m", "c/m"], ["m", "m", "m"]
    assert names_of(typed, own, ["one=a/m", "two=b/m", "more=b/m"]) == [
        Names("one", ()),
        Names("two", ("more",)),
        Names("m", ()),
    ]
    with pytest.raises(UsageError, match=r"b/m and c/m would both be called 'm'.*--alias NAME=c/m"):
        names_of(typed, own, ["one=a/m"])
    with pytest.raises(UsageError, match="could be of several models"):
        names_of(typed, own, ["one=m"])


@pytest.mark.parametrize("aliases", [["x=one", "x=two"], ["two=one"]])
def test_no_two_models_are_called_the_same(aliases: list[str]) -> None:
    with pytest.raises(UsageError, match="would both be called"):
        names_of(["one", "two"], ["one", "two"], aliases)
