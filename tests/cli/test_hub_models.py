"""Models by name: pulled from a stand-in of the Hub, pushed to it, run, and everything that goes wrong."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.model.checkpoints import random_model, write_gguf
from tests.model.hub_fixtures import hub, use_hub
from tests.model.hub_stand_in import TOKEN, Hub, Repository

Run = Callable[..., Any]
__all__ = ["hub"]  # a fixture


def listed(rockledge: Run) -> list[str]:
    return [model["name"] for model in rockledge("list", "--json").json["models"]]


def test_an_artifact_is_pushed_pulled_and_run(
    rockledge: Run, hub: Hub, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    pushed = rockledge("push", artifact, "me/toy", "--license", "apache-2.0", "--private", "--json")
    assert pushed.code == 0, pushed.err
    repository = hub.repositories["me/toy"]
    assert repository.private
    for file in artifact.iterdir():
        assert repository.files[file.name] == file.read_bytes()
    assert repository.card["library_name"] == "rockledge"
    assert repository.card["license"] == "apache-2.0"
    assert repository.card["pipeline_tag"] == "text-generation"

    pulled = rockledge("pull", "me/toy", "--json")
    assert (pulled.code, pulled.json["kind"]) == (0, "artifact")
    assert (Path(pulled.json["path"]) / "model.safetensors").read_bytes() == repository.files[
        "model.safetensors"
    ]
    assert listed(rockledge) == ["me/toy"]
    asked = len(hub.log)
    there, here = (
        rockledge("run", model, "Hello", "--max-tokens", 5, "--json").json["text"]
        for model in ("me/toy", artifact)
    )
    assert there == here
    assert len(hub.log) == asked  # what is here needs no network
    assert rockledge("rm", "me/toy", "--json").json["removed"] == ["me/toy"]
    assert listed(rockledge) == []
    assert not list((tmp_path / "hub").glob("models--*"))


@pytest.mark.parametrize("kind", ["directory", "gguf", "one of several"])
def test_a_checkpoint_runs_by_its_hub_id(
    kind: str, rockledge: Run, hub: Hub, checkpoint: Path, tmp_path: Path
) -> None:
    name, source = "org/model", checkpoint
    if kind != "directory":
        (tmp_path / "gguf").mkdir()
        source = write_gguf(tmp_path / "gguf/Tiny-Q8_0.gguf", random_model("llama3"))
        shutil.copy(source, source.with_name("Tiny-Q4_0.gguf")) if kind == "one of several" else None
        source.with_name("mmproj-Tiny-f16.gguf").write_bytes(b"GGUF, but of images")
        name = "org/model:q8_0" if kind == "one of several" else name
    hub.add("org/model", source if source.is_dir() else source.parent)
    first = rockledge("run", name, "Hello", "--raw", "--max-tokens", 5, "--json")
    assert first.code == 0, first.err
    local = rockledge("run", source, "Hello", "--raw", "--max-tokens", 5, "--json")
    assert first.json["text"] == local.json["text"]
    hub.repositories.clear()
    again = rockledge("run", name, "Hello", "--raw", "--max-tokens", 5, "--json")
    assert again.json["text"] == first.json["text"]
    assert not [request for request in hub.log if "mmproj" in request]


def test_only_the_files_that_are_read_are_fetched(rockledge: Run, hub: Hub, checkpoint: Path) -> None:
    repository = hub.add("org/model", checkpoint)
    repository.files |= dict.fromkeys(("consolidated.safetensors", "onnx/config.json", "run.py"), b"{}")
    assert rockledge("pull", "org/model", "--json").code == 0
    fetched = {request.rpartition("/")[2] for request in hub.log if request.startswith("GET /org")}
    assert fetched == {path.name for path in checkpoint.iterdir()}


def test_pull_takes_the_newer_version_and_run_what_is_here(
    rockledge: Run, hub: Hub, artifact: Path, tmp_path: Path
) -> None:
    repository = hub.add("org/toy", artifact)
    first = rockledge("pull", "org/toy", "--json").json["path"]
    repository.files["report.md"] = b"# newer"
    repository.commits += 1
    assert rockledge("run", "org/toy", "Hello", "--max-tokens", 1).code == 0
    assert listed(rockledge) == ["org/toy"]
    second = Path(rockledge("pull", "org/toy", "--json").json["path"])
    assert (second / "report.md").read_bytes() == b"# newer"
    assert not Path(first).exists()
    assert (second / "model.safetensors").is_file()


def test_names_that_are_not_models(rockledge: Run, hub: Hub, tmp_path: Path, checkpoint: Path) -> None:
    hub.add("org/empty", tmp_path / "nothing")
    hub.add("org/pickled", tmp_path / "nothing").files = {"config.json": b"{}", "pytorch_model.bin": b""}
    several = hub.add("org/several", tmp_path / "nothing")
    several.files = {"a-Q4_0.gguf": b"", "a-Q8_0.gguf": b"", "b-Q8_0.gguf": b""}
    several.files["c-F16-00001-of-00002.gguf"] = b""
    hub.add("org/gated", checkpoint, gated=True)
    hub.add("org/secret", checkpoint, private=True)
    for name, expected in (
        ("org/none", "neither here nor on the Hub"),
        ("org/secret", "or it is private"),
        ("org/gated", f"accept its terms at {hub.url}/org/gated"),
        ("org/empty", "holds neither safetensors nor GGUF files"),
        ("org/pickled", "holds neither safetensors nor GGUF files"),
        ("org/several", "name one as org/several:FILE, of a-Q4_0.gguf, a-Q8_0.gguf"),
        ("org/several:Q8_0", "fits 2 GGUF files"),
        ("org/several:Q3", "holds no GGUF file Q3"),
        ("org/several:F16", "but not c-F16-00002-of-00002.gguf"),
        ("no-slash", "expected ORG/NAME"),
    ):
        done = rockledge("pull", name)
        assert done.code in (1, 2)
        assert expected in done.err
        assert len(done.err.removeprefix("Fetching org/gated (404.9 kB).\n").strip().splitlines()) == 1
    assert listed(rockledge) == []
    assert not list((tmp_path / "hub").glob("models--*/snapshots/*/*"))


def test_a_gated_repository_opens_with_a_token(
    rockledge: Run, hub: Hub, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/gated", checkpoint, gated=True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert rockledge("pull", "org/gated").code == 0


def test_without_a_network(
    rockledge: Run, hub: Hub, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/toy", artifact)
    assert rockledge("pull", "org/toy").code == 0
    use_hub("http://127.0.0.1:9", tmp_path, monkeypatch)  # the port of "discard": nobody listens
    assert rockledge("run", "org/toy", "Hello", "--max-tokens", 1).code == 0
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for command in (
        ("run", "org/other", "Hello"),
        ("pull", "org/other"),
        ("pull", "org/toy"),
        ("push", artifact, "me/toy"),
    ):
        done = rockledge(*command)
        assert done.code == 1
        assert "no connection: http://127.0.0.1:9" in done.err
    assert listed(rockledge) == ["org/toy"]


def interrupted(rockledge: Run, hub: Hub, name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A pull whose connection is lost in the middle of the weights, again and again."""
    monkeypatch.setattr("time.sleep", lambda _: None)  # huggingface_hub waits between its attempts
    hub.cut["model.safetensors"] = 1000
    return rockledge("pull", name)


def test_an_interrupted_download_is_not_taken_for_a_model(
    rockledge: Run, hub: Hub, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/model", checkpoint)
    cut = interrupted(rockledge, hub, "org/model", monkeypatch)
    assert cut.code == 1
    assert "Traceback" not in cut.err
    assert listed(rockledge) == []
    with monkeypatch.context() as elsewhere:
        use_hub("http://127.0.0.1:9", tmp_path, elsewhere)
        assert rockledge("run", "org/model", "Hello").code == 1
    hub.cut.clear()
    before = len(hub.log)
    arrived = {path.name for path in (tmp_path / "hub").glob("models--*/snapshots/*/*")}
    assert "model.safetensors" not in arrived
    again = rockledge("run", "org/model", "Hello", "--max-tokens", 1)
    assert again.code == 0, again.err
    fetched = [request for request in hub.log[before:] if request.startswith("GET /org")]
    every = {path.name for path in checkpoint.iterdir()}
    assert {request.rpartition("/")[2] for request in fetched} == every - arrived


def test_clean_removes_an_interrupted_download(
    rockledge: Run,
    hub: Hub,
    checkpoint: Path,
    artifact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub.add("org/toy", artifact)
    hub.add("org/model", checkpoint)
    assert rockledge("pull", "org/toy").code == 0
    interrupted(rockledge, hub, "org/model", monkeypatch)
    assert rockledge("clean").code == 2  # nobody to ask
    done = rockledge("clean", "--yes", "--json")
    assert done.json["removed"] == ["half-fetched org/model"]
    assert done.json["freed_mb"] > 0
    assert [path.name for path in (tmp_path / "hub").glob("models--*")] == ["models--org--toy"]
    assert rockledge("clean", "--yes", "--json").json == {"removed": [], "freed_mb": 0}
    assert listed(rockledge) == ["org/toy"]


def test_clean_removes_parts_that_a_killed_download_left_before_the_next_one(
    rockledge: Run, hub: Hub, artifact: Path, tmp_path: Path
) -> None:
    hub.add("org/toy", artifact)
    assert rockledge("pull", "org/toy").code == 0
    old, new = (tmp_path / f"hub/models--org--toy/blobs/{name}.incomplete" for name in ("a.12", "b.34"))
    for part in (old, new):
        part.write_bytes(bytes(2000))
    os.utime(old, (1e9, 1e9))  # the other may be another program's, which is at it
    assert rockledge("clean", "--yes", "--json").json == {
        "removed": [f"half-fetched {old}"],
        "freed_mb": 0.002,
    }
    assert (old.exists(), new.exists()) == (False, True)
    assert listed(rockledge) == ["org/toy"]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_download_ends_when_it_is_told_to_and_goes_on_the_next_time(
    sent: signal.Signals, code: int, rockledge: Run, hub: Hub, artifact: Path
) -> None:
    size = len(hub.add("org/toy", artifact).files["model.safetensors"])
    hub.stalled["model.safetensors"] = size // 2
    command = [sys.executable, "-m", "rockledge", "pull", "org/toy"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert hub.reached.wait(60)
        assert rockledge("clean", "--yes", "--json").json["removed"] == []  # somebody is at it
        process.send_signal(sent)
        _, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert "Traceback" not in err
    assert listed(rockledge) == []
    hub.stalled.clear()
    assert rockledge("pull", "org/toy").code == 0
    assert listed(rockledge) == ["org/toy"]


def test_a_killed_update_leaves_the_older_version(
    rockledge: Run, hub: Hub, artifact: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = hub.add("org/toy", artifact)
    assert rockledge("pull", "org/toy").code == 0
    repository.files["model.safetensors"] = (checkpoint / "model.safetensors").read_bytes()
    repository.commits += 1
    assert interrupted(rockledge, hub, "org/toy", monkeypatch).code == 1
    assert rockledge("run", "org/toy", "Hello", "--max-tokens", 1).code == 0
    assert rockledge("clean", "--yes").code == 0
    assert rockledge("run", "org/toy", "Hello", "--max-tokens", 1).code == 0


def test_a_damaged_artifact_is_fetched_again(rockledge: Run, hub: Hub, artifact: Path) -> None:
    repository = hub.add("org/toy", artifact)
    whole = repository.files["model.safetensors"]
    middle = len(whole) // 2
    repository.files["model.safetensors"] = (
        whole[:middle] + bytes(255 - byte for byte in whole[middle : middle + 9]) + whole[middle + 9 :]
    )
    damaged = rockledge("pull", "org/toy")
    assert (damaged.code, "checksum" in damaged.err) == (1, True)
    assert listed(rockledge) == []
    repository.files["model.safetensors"] = whole
    assert rockledge("pull", "org/toy").code == 0


def test_a_full_disk(
    rockledge: Run, hub: Hub, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub.add("org/model", checkpoint)
    with monkeypatch.context() as small:
        small.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
        done = rockledge("pull", "org/model")
        assert (done.code, "1.0 kB free" in done.err) == (1, True)
        assert not list((tmp_path / "hub").glob("models--*/snapshots/*/*"))

    def full(*_: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as filled:
        filled.setattr("huggingface_hub.file_download.http_get", full)
        done = rockledge("pull", "org/model")
        assert (done.code, "no space is left" in done.err) == (1, True)
    assert listed(rockledge) == []
    assert rockledge("pull", "org/model").code == 0


def test_a_directory_of_the_same_name_wins_and_says_so(
    rockledge: Run, hub: Hub, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/toy", artifact)
    work = tmp_path / "work"
    shutil.copytree(artifact, work / "org/toy")
    monkeypatch.chdir(work)
    silent = rockledge("run", "org/toy", "Hello", "--max-tokens", 1)
    assert "is taken" not in silent.err  # nobody asked the Hub
    pulled = rockledge("pull", "org/toy")
    assert "is a path here too" in pulled.out
    said = rockledge("run", "org/toy", "Hello", "--max-tokens", 1)
    assert "org/toy is a path here and is taken" in said.err


def test_nothing_on_the_hub_is_lost(
    rockledge: Run, hub: Hub, artifact: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    repository = hub.add("me/other", checkpoint)
    before = dict(repository.files)
    refused = rockledge("push", artifact, "me/other")
    assert (refused.code, "add --overwrite" in refused.err) == (2, True)
    assert repository.files == before
    public = rockledge("push", artifact, "me/other", "--overwrite", "--private")
    assert (public.code, "is public" in public.err) == (2, True)
    assert repository.files == before
    assert rockledge("push", artifact, "me/other", "--overwrite").code == 0
    assert set(repository.files) == {path.name for path in artifact.iterdir()} | {"README.md"}
    assert rockledge("push", artifact, "me/other").code == 0  # by now it is one of ours


def test_push_refuses_what_is_not_a_whole_artifact(
    rockledge: Run, hub: Hub, artifact: Path, checkpoint: Path, tmp_path: Path
) -> None:
    damaged = shutil.copytree(artifact, tmp_path / "damaged")
    size = os.path.getsize(damaged / "model.safetensors")
    with open(damaged / "model.safetensors", "r+b") as file:
        file.seek(size // 2)
        file.write(b"\xaa\x55" * 32)
    for directory, name, expected in (
        (damaged, "me/toy", "checksum"),
        (checkpoint, "me/toy", "is not an artifact"),
        (tmp_path / "none", "me/toy", "does not exist"),
        (artifact, "toy", "expected ORG/NAME"),
        (artifact, "me/toy:file", "expected ORG/NAME"),
        (artifact, "me/toy", "token"),  # there is none
    ):
        done = rockledge("push", directory, name)
        assert done.code in (1, 2)
        assert expected in done.err
    assert hub.repositories == {}


def test_by_environment_alone_in_another_process(hub: Hub, artifact: Path, tmp_path: Path) -> None:
    hub.add("org/toy", artifact)
    done = subprocess.run(
        [sys.executable, "-m", "rockledge", "pull", "org/toy", "--json", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(json.loads(done.stdout)["path"]).is_relative_to(tmp_path / "hub")


def test_a_repository_cannot_name_files_of_others(rockledge: Run, hub: Hub, tmp_path: Path) -> None:
    victim = write_gguf(tmp_path / "victim.gguf", random_model("llama3"))
    hub.repositories["org/model"] = Repository({"../../../../victim.gguf": victim.read_bytes()})
    done = rockledge("pull", "org/model")
    assert (done.code, "is called" in done.err) == (1, True)
    assert rockledge("clean", "--yes").code == 0
    assert victim.exists()


def test_an_artifact_whose_header_is_damaged_is_fetched_again(
    rockledge: Run, hub: Hub, artifact: Path
) -> None:
    repository = hub.add("org/toy", artifact)
    whole = repository.files["model.safetensors"]
    repository.files["model.safetensors"] = b"x" * len(whole)
    assert rockledge("pull", "org/toy").code == 1
    repository.files["model.safetensors"] = whole
    assert rockledge("pull", "org/toy").code == 0


def test_something_else_that_answers_is_not_taken_for_the_hub(
    rockledge: Run, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.model.hub_stand_in._about", lambda *_: ["a login page"])
    hub.repositories["org/model"] = Repository({})
    done = rockledge("pull", "org/model")
    assert (done.code, "is not the Hub" in done.err) == (1, True)
