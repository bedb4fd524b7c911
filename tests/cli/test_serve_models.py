"""`rockledge serve A B` as a process: several models under one plan of memory."""

import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from rockledge.artifact.layout import TENSORS
from rockledge.runtime.engine import Engine
from rockledge.runtime.footprint import STEP_TOKENS
from rockledge.runtime.loading import prepare
from rockledge.synth import synth_artifact

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three toy artifacts that answer differently."""
    root = tmp_path_factory.mktemp("several")
    return {name: synth_artifact("toy", root / name, seed=seed) for seed, name in enumerate("xyz", 11)}


def answer(http: httpx.Client, model: str | None) -> Any:
    named = {} if model is None else {"model": model}
    body = {"prompt": "Hi", "max_tokens": 6, "temperature": 0, "ignore_eos": True, **named}
    return http.post("/v1/completions", json=body)


def text(http: httpx.Client, model: str | None) -> str:
    return str(answer(http, model).json()["choices"][0]["text"])


def states(http: httpx.Client) -> dict[str, str]:
    return {name: one["state"] for name, one in http.get("/health").json()["models"].items()}


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def alone(path: Path) -> str:
    """What the engine answers without any server."""
    with Engine.load(path, threads=1) as engine:
        ids = engine.tokenizer.encode("Hi", bos=True)
        return "".join(piece.text for piece in engine.generate(ids, max_tokens=6, ignore_eos=True))


def room_for(path: Path, count: float) -> str:
    """--memory for so many of them, with the largest steps."""
    return str(int(prepare(path, 1, 16).demand.total(STEP_TOKENS[0], 256) * count))


def test_models_are_loaded_by_requests_and_make_room_for_each_other(
    serving: Run, models: dict[str, Path]
) -> None:
    expected = {name: alone(path) for name, path in models.items()}
    memory = room_for(models["x"], 2.5)
    flags = ("--ctx", "256", "--memory", memory, "--keep-alive", "-1")
    with serving(*flags, artifact=models["x"], beside=[models["y"], models["z"]]) as served:
        assert (served.ready["model"], served.ready["models"]) == ("x", ["x", "y", "z"])
        with httpx.Client(base_url=served.ready["url"], timeout=30) as http:
            listed = http.get("/v1/models").json()["data"]
            assert [(model["id"], model["context_length"]) for model in listed] == [
                ("x", 256),
                ("y", 256),
                ("z", 256),
            ]
            assert states(http) == {"x": "loaded", "y": "unloaded", "z": "unloaded"}
            assert text(http, None) == expected["x"]
            for name in "xyzyxz":
                assert text(http, name) == expected[name]
            assert sorted(states(http).values()) == ["loaded", "loaded", "unloaded"]
            with ThreadPoolExecutor(12) as pool:
                found = list(pool.map(lambda n: text(http, "xyz"[n % 3]), range(36)))
            assert found == [expected["xyz"[n % 3]] for n in range(36)]
            assert answer(http, "w").status_code == 404
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(20) == 143
        assert "Traceback" not in served.log.read_text()


def test_a_model_that_is_damaged_gone_or_another_one_is_said_and_comes_back(
    serving: Run, models: dict[str, Path], tmp_path: Path
) -> None:
    changing = Path(shutil.copytree(models["y"], tmp_path / "changing"))
    with serving("--keep-alive", "0", artifact=models["x"], beside=[changing]) as served:
        with httpx.Client(base_url=served.ready["url"], timeout=30) as http:
            right = text(http, "changing")
            until(lambda: set(states(http).values()) == {"unloaded"})

            def refused(words: str) -> None:
                for _ in range(2):
                    found = answer(http, "changing")
                    assert (found.status_code, found.json()["error"]["code"]) == (503, "model_load_failed")
                    assert words in found.json()["error"]["message"]
                assert answer(http, "x").status_code == 200
                assert http.get("/health/ready").status_code == 200

            changing.rename(tmp_path / "away")
            refused("is not a directory; give the one")
            shutil.copytree(models["z"], changing)
            refused("is not the artifact that it was when the server started")
            shutil.rmtree(changing)
            shutil.copytree(tmp_path / "away", changing)
            with open(changing / TENSORS, "r+b") as file:
                file.truncate(file.seek(0, os.SEEK_END) - 100)
            refused("changing")
            shutil.rmtree(changing)
            (tmp_path / "away").rename(changing)
            assert text(http, "changing") == right
        assert "Traceback" not in served.log.read_text()


def test_damage_that_is_found_while_it_answers_is_looked_for_before_it_answers_again(
    serving: Run, models: dict[str, Path], tmp_path: Path
) -> None:
    changing = Path(shutil.copytree(models["y"], tmp_path / "changing"))
    with (
        serving(artifact=models["x"], beside=[changing]) as served,
        httpx.Client(base_url=served.ready["url"], timeout=30) as http,
    ):
        right = text(http, "changing")
        until(lambda: http.get("/health").json()["models"]["changing"]["integrity"] == "verified")
        whole = (changing / TENSORS).read_bytes()
        with open(changing / TENSORS, "r+b") as file:  # in the middle of a tensor, where no load looks
            file.seek(len(whole) // 2)
            file.write(bytes(value ^ 255 for value in whole[len(whole) // 2 :][:8]))
        until(lambda: states(http)["changing"] == "unloaded")
        found = answer(http, "changing")
        assert found.status_code == 503
        assert "checksum" in found.json()["error"]["message"]
        assert answer(http, "x").status_code == 200
        (changing / TENSORS).write_bytes(whole)
        assert text(http, "changing") == right


def test_loading_and_unloading_does_not_grow(serving: Run, models: dict[str, Path]) -> None:
    with serving("--keep-alive", "0", artifact=models["x"], beside=[models["y"]]) as served:

        def taken() -> tuple[int, int, int]:
            """Megabytes, threads and open files of the process."""
            status = Path(f"/proc/{served.process.pid}/status").read_text()
            found = [int(re.findall(rf"{name}:\s+(\d+)", status)[0]) for name in ("VmRSS", "Threads")]
            return found[0] >> 10, found[1], len(os.listdir(f"/proc/{served.process.pid}/fd"))

        with httpx.Client(base_url=served.ready["url"], timeout=30) as http:
            for number in range(24):
                assert answer(http, "xy"[number % 2]).status_code == 200
                until(lambda: set(states(http).values()) == {"unloaded"})
                if number == 3:
                    before = taken()
            after = taken()
        # Twenty engines that stayed would take 10 MB and 40 files.
        assert after[0] - before[0] < 5
        assert after[1] <= before[1] + 1
        assert after[2] <= before[2] + 1


@pytest.mark.parametrize(
    "flags, said",
    [
        (("--memory", "150k"), "x: --memory is 153.6 kB, expected at least"),
        (("--npu", "require"), "--npu require is for one model, and these are 2"),
        (("--chat-template-kwargs", '{"a": 1}'), "--chat-template-kwargs is for one model"),
        (("--alias", "other"), "write NAME=MODEL"),
        (("--keep-alive", "soon"), "'soon' is not a duration"),
    ],
)
def test_what_cannot_be_is_refused_at_the_start(
    rockledge: Run, models: dict[str, Path], flags: tuple[str, ...], said: str
) -> None:
    done = rockledge("serve", models["x"], models["y"], "--port", "0", *flags, "--json")
    assert done.code in (1, 2)
    assert said in done.json["error"]


def test_two_models_of_one_name_need_another(rockledge: Run, models: dict[str, Path], tmp_path: Path) -> None:
    other = shutil.copytree(models["y"], tmp_path / "x")
    done = rockledge("serve", models["x"], other, "--port", "0", "--json")
    assert done.code == 2
    assert f"--alias NAME={other}" in done.json["error"]


def test_aliases_name_their_models(serving: Run, models: dict[str, Path], tmp_path: Path) -> None:
    other = Path(shutil.copytree(models["y"], tmp_path / "x"))
    flags = ("--alias", f"second={other}", "--alias", f"first={models['x']}")
    with (
        serving(*flags, artifact=models["x"], beside=[other]) as served,
        httpx.Client(base_url=served.ready["url"], timeout=30) as http,
    ):
        assert [model["id"] for model in http.get("/v1/models").json()["data"]] == ["first", "second"]
        assert text(http, "second") == alone(other)


def test_a_signal_while_models_come_and_go_ends_clean(serving: Run, models: dict[str, Path]) -> None:
    flags = ("--keep-alive", "0", "--grace", "5")
    with serving(*flags, artifact=models["x"], beside=[models["y"]]) as served:
        stopped = threading.Event()

        def ask(name: str) -> None:
            with httpx.Client(base_url=served.ready["url"], timeout=30) as http:
                while not stopped.is_set():
                    try:
                        assert answer(http, name).status_code in (200, 503)
                    except httpx.TransportError:
                        return

        with ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(ask, name) for name in "xyxy"]
            time.sleep(0.7)
            served.process.send_signal(signal.SIGTERM)
            assert served.process.wait(20) == 143
            stopped.set()
            for one in asking:
                one.result()
        assert "Traceback" not in served.log.read_text()
