"""The file of keys: what is in it, who may write it, and what it refuses."""

import hashlib
import hmac
import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rockledge.errors import UsageError
from rockledge.serve.safety.key_file import KeyLimits, add_key, id_of, read_keys, remove_key

LIMITS = KeyLimits(60, 1000, 2, 50, -3)


def test_a_key_is_kept_as_its_salted_hash_alone(tmp_path: Path) -> None:
    path = tmp_path / "made" / "keys.json"
    first, second = add_key(path, "home", LIMITS), add_key(path, "n8n", KeyLimits())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert first not in path.read_text()
    [home, n8n] = read_keys(path)
    assert (home.name, home.limits, n8n.limits) == ("home", LIMITS, KeyLimits())
    assert home.digest == hmac.new(home.salt, first.encode(), hashlib.sha256).digest()
    assert home.salt != n8n.salt
    assert id_of(second) == n8n.id
    assert len(first) > 43  # 256 bits


def test_other_keys_and_the_mode_stay(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    add_key(path, "a", LIMITS)
    path.chmod(0o640)
    add_key(path, "b", KeyLimits())
    remove_key(path, "a")
    assert [key.name for key in read_keys(path)] == ["b"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [found.name for found in tmp_path.iterdir()] == ["keys.json"]


@pytest.mark.parametrize("name", ["", "a b", "-x", "x" * 65, "a/b", "a\n", "ä"])
def test_names_are_plain(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="the name"):
        add_key(tmp_path / "keys.json", name, KeyLimits())


def test_a_name_is_given_once_and_an_unknown_one_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    add_key(path, "a", KeyLimits())
    with pytest.raises(UsageError, match="has a key 'a' already"):
        add_key(path, "a", KeyLimits())
    with pytest.raises(UsageError, match="no key 'b', expected one of: a"):
        remove_key(path, "b")


def test_a_pipe_in_its_place_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(path := tmp_path / "keys.json")
    with pytest.raises(UsageError, match=r"cannot be read.*a pipe, not a file"):
        read_keys(path)


def test_a_file_that_every_user_may_write_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    add_key(path, "a", KeyLimits())
    path.chmod(0o602)
    with pytest.raises(UsageError, match="chmod o-w"):
        read_keys(path)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"requests_per_minut": 5}, "'requests_per_minut' is not known"),
        ({"requests_per_minute": 0}, "requests_per_minute is 0"),
        ({"tokens_per_day": "5"}, "tokens_per_day is '5'"),
        ({"concurrent": True}, "concurrent is True"),
        ({"priority": 101}, "from -100 to 100"),
        ({"salt": "00"}, "its salt is not 32 hexadecimal digits"),
        ({"hash": None}, "its hash is not 64 hexadecimal digits"),
        ({"id": "x"}, "its id is not 8 hexadecimal digits"),
        ({"name": 5}, "its name"),
    ],
)
def test_a_mistake_in_it_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = tmp_path / "keys.json"
    add_key(path, "a", LIMITS)
    value = json.loads(path.read_text())
    value["keys"][0] |= change
    path.write_text(json.dumps(value))
    with pytest.raises(UsageError, match=said):
        read_keys(path)


def test_no_name_and_no_id_is_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    add_key(path, "a", LIMITS)
    [entry] = json.loads(path.read_text())["keys"]
    for other, what in (({**entry, "id": "0" * 8}, "name"), ({**entry, "name": "b"}, "id")):
        path.write_text(json.dumps({"keys": [entry, other]}))
        with pytest.raises(UsageError, match=f"two keys have the {what}"):
            read_keys(path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["keys", "name", "id", "salt", "hash", "priority"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(VALUES.map(json.dumps).map(str.encode) | st.binary(max_size=40))
def test_anything_else_is_refused_in_a_sentence(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(data)
    with suppress(UsageError):
        assert read_keys(path) == []
