"""Settings of a chat: taken, refused, and taken back."""

import pytest

from rockledge.cli.chat_settings import ChatSettings, changed, names
from rockledge.errors import UsageError
from rockledge.model.chat import ChatTemplate
from rockledge.runtime.sampling import Sampling

START = ChatSettings(Sampling(temperature=0.7, seed=5), 1024)
CHAT = ChatTemplate("{{ bos_token }}{% if enable_thinking %}{{ messages }}{% endif %}", {"bos_token": "<s>"})


def set_to(name: str, value: str) -> object:
    return changed(START, START, CHAT, name, value).values()[name]


@pytest.mark.parametrize(
    ("name", "value", "result"),
    [
        ("temperature", "0", 0.0),
        ("temperature", "1e-1", 0.1),
        ("top_k", "40", 40),
        ("top_p", "0.9", 0.9),
        ("min_p", "0.05", 0.05),
        ("seed", "-3", -3),
        ("seed", "none", None),
        ("max_tokens", "7", 7),
        ("enable_thinking", "false", False),
        ("enable_thinking", '"false"', "false"),
        ("enable_thinking", "very hard", "very hard"),
    ],
)
def test_values_are_taken(name: str, value: str, result: object) -> None:
    taken = set_to(name, value)
    assert taken == result
    assert type(taken) is type(result)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", "-1"),
        ("temperature", "nan"),
        ("temperature", "warm"),
        ("top_k", "-1"),
        ("top_k", "1.5"),
        ("top_k", "99999999999"),
        ("top_p", "0"),
        ("top_p", "nan"),
        ("min_p", "2"),
        ("seed", "x"),
        ("max_tokens", "0"),
        ("max_tokens", "many"),
    ],
)
def test_impossible_values_are_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=name):
        set_to(name, value)


@pytest.mark.parametrize("name", ["Temperature", "messages", "bos_token", "tools", "stop"])
def test_unknown_names_are_answered_with_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError, match=r"expected temperature, .*max_tokens, enable_thinking"):
        set_to(name, "1")


def test_default_takes_a_setting_back() -> None:
    for name, value in [
        ("temperature", "1"),
        ("seed", "6"),
        ("max_tokens", "1"),
        ("enable_thinking", "true"),
    ]:
        other = changed(START, START, CHAT, name, value)
        assert other != START
        assert changed(other, START, CHAT, name, "default") == START
    assert names(CHAT) == [*START.values(), "enable_thinking"]
