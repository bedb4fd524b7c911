"""`rockledge keys`, and a server that asks for them."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

Run = Callable[..., Any]


def test_a_key_is_made_listed_and_removed(rockledge: Run, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    made = rockledge("keys", "add", "home", "--keys", path, "--tokens-per-day", "8k", "--priority", "-2")
    assert made.code == 0
    key = made.out.strip()
    assert key.startswith("rk-")
    assert key not in made.err + path.read_text()
    listed = json.loads(rockledge("keys", "list", "--keys", path, "--json").out)["keys"]
    assert [(k["name"], k["tokens_per_day"], k["priority"], k["concurrent"]) for k in listed] == [
        ("home", 8192, -2, None)
    ]
    again = rockledge("keys", "add", "home", "--keys", path)
    assert (again.code, "already" in again.err) == (2, True)
    assert rockledge("keys", "add", "b", "--keys", path, "--priority", "1000").code == 2
    assert rockledge("keys", "remove", "home", "--keys", path).code == 0
    assert json.loads(path.read_text()) == {"keys": []}


def test_a_server_asks_for_keys_and_reads_them_again_at_sighup(
    rockledge: Run, serving: Run, tmp_path: Path
) -> None:
    path = tmp_path / "keys.json"
    key = json.loads(rockledge("keys", "add", "a", "--keys", path, "--json").out)["key"]
    with serving("--keys", str(path), "--host", "127.0.0.1", "--allow-host", "board") as served:
        url = served.ready["url"]
        assert httpx.get(f"{url}/v1/models").status_code == 401
        headers = {"Authorization": f"Bearer {key}", "Host": "board"}
        assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 200
        rockledge("keys", "remove", "a", "--keys", path)
        os.kill(served.process.pid, signal.SIGHUP)
        end = time.monotonic() + 10
        while httpx.get(f"{url}/v1/models", headers=headers).status_code != 401:
            assert time.monotonic() < end
        assert served.process.poll() is None
        assert f"keys: 0 read from {path}" in served.log.read_text()
        assert key not in served.log.read_text()


def test_wrong_options_are_refused_before_anything_is_loaded(rockledge: Run, tmp_path: Path) -> None:
    for flags, said in (
        (("--keys", tmp_path / "none"), "cannot be read"),
        (("--allow-origin", "evil"), "--allow-origin"),
        (("--allow-host", "http://x"), "--allow-host"),
        (("--tls-cert", tmp_path), "give both"),
        (("--tls-cert", tmp_path / "c", "--tls-key", tmp_path / "k"), "No such file"),
    ):
        done = rockledge("serve", "nowhere", *flags)
        assert done.code == 2
        assert said in done.err
