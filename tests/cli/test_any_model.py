"""Commands take a checkpoint as they take an artifact; what cannot be converted is said in one sentence."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from tests.model.checkpoints import random_model, write_gguf

from rockledge.artifact import open_artifact
from rockledge.cli import known_models
from rockledge.synth import synth_checkpoint

Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROCKLEDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "converted"


def test_a_checkpoint_is_converted_once_and_answers(rockledge: Run, checkpoint: Path, cache: Path) -> None:
    first = rockledge("run", checkpoint, "Hello", "--max-tokens", 5, "--json")
    assert first.code == 0
    assert f"rockledge quantize {checkpoint}" in first.err
    assert "convert: " in first.err
    (report,) = cache.glob("*/*/report.md")
    assert f"- command: `rockledge quantize {checkpoint} --instant -o " in report.read_text()
    assert "Hello" not in report.read_text()
    again = rockledge("run", checkpoint, "Hello", "--max-tokens", 5, "--json")
    assert again.json["text"] == first.json["text"]
    assert "onverting" not in again.err


def test_a_gguf_file_answers(rockledge: Run, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", random_model("llama3"))
    done = rockledge("run", file, "ab", "--raw", "--max-tokens", 3, "--json")
    assert done.code == 0
    assert done.json["completion_tokens"] >= 1


def test_quiet_converts_without_a_word(rockledge: Run, checkpoint: Path) -> None:
    done = rockledge("run", checkpoint, "Hello", "--max-tokens", 5, "--quiet")
    assert (done.code, done.err) == (0, "")


def test_instant_by_hand_makes_what_run_makes(rockledge: Run, checkpoint: Path, tmp_path: Path) -> None:
    made = rockledge("quantize", checkpoint, "-o", tmp_path / "out", "--instant", "--json")
    assert made.code == 0
    assert made.json["bits_per_weight"] == pytest.approx(
        open_artifact(tmp_path / "out").bits_per_weight, abs=1e-3
    )
    texts = [
        rockledge("run", model, "Hello", "--max-tokens", 5, "--json").json["text"]
        for model in (checkpoint, tmp_path / "out")
    ]
    assert texts[0] == texts[1]


def test_an_instant_artifact_knows_its_source(rockledge: Run, checkpoint: Path, tmp_path: Path) -> None:
    made = rockledge("quantize", checkpoint, "-o", tmp_path / "out", "--instant")
    assert f"{tmp_path / 'out'} is complete; its report.md says more." in made.out
    other = synth_checkpoint("toy", tmp_path / "other", seed=8)
    text = tmp_path / "text"
    text.write_text("To be, or not to be, that is the question." * 9)
    flags = ("--text", text, "--window", 32, "--windows", 2, "--json")
    assert rockledge("eval", tmp_path / "out", "--reference", checkpoint, *flags).code == 0
    refused = rockledge("eval", tmp_path / "out", "--reference", other, *flags)
    assert refused.code == 2
    assert "is not what" in refused.json["error"]


@pytest.mark.parametrize(
    "flag", [("--fast",), ("--tokens", 9), ("--calibration", "x"), ("--fit", "rk3588-8gb")]
)
def test_instant_refuses_what_it_would_ignore(
    flag: tuple[object, ...], rockledge: Run, checkpoint: Path, tmp_path: Path
) -> None:
    done = rockledge("quantize", checkpoint, "-o", tmp_path / "out", "--instant", *flag)
    assert done.code == 2
    assert str(flag[0]) in done.err
    assert not (tmp_path / "out").exists()


def test_what_is_not_a_model_is_said(rockledge: Run, checkpoint: Path, tmp_path: Path, cache: Path) -> None:
    cut = write_gguf(tmp_path / "cut.gguf", random_model("llama3"))
    os.truncate(cut, cut.stat().st_size - 100)
    other = tmp_path / "other.gguf"
    writer = gguf.GGUFWriter(other, "mamba")
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    empty = tmp_path / "empty"
    empty.mkdir()
    for model, expected in (
        (tmp_path / "nowhere", "does not exist, expected"),
        (cut, "cut.gguf is cut short"),
        (other, "'mamba'"),
        (empty, str(empty)),
    ):
        done = rockledge("run", model, "Hello")
        assert done.code == 1
        assert expected in done.err
        assert "Traceback" not in done.err
    assert not [path for path in cache.glob("*/*") if path.is_dir()]


def test_a_safetensors_file_cut_within_its_tensors_leaves_nothing(
    rockledge: Run, checkpoint: Path, tmp_path: Path, cache: Path
) -> None:
    import shutil

    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(-64, os.SEEK_END)
        file.write(b"\xff" * 64)  # NaN in bfloat16
    done = rockledge("run", copy, "Hello")
    assert done.code == 1
    assert "NaN" in done.err
    assert not [path for path in cache.glob("*/*") if path.is_dir()]


def test_a_hub_id_without_the_package_names_it(rockledge: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    done = rockledge("run", "some/model", "Hello")
    assert done.code == 1
    assert "pip install huggingface_hub" in done.err


def test_a_full_disk_is_one_sentence(
    rockledge: Run, checkpoint: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    done = rockledge("run", checkpoint, "Hello")
    assert done.code == 1
    assert "no space is left" in done.err
    assert "$ROCKLEDGE_CACHE names another place, `rockledge clean --all` frees" in done.err
    assert not list(cache.glob("*/*/model.safetensors"))


def test_the_cache_has_a_limit(rockledge: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCKLEDGE_CONVERTED_SIZE", "much")
    done = rockledge("run", checkpoint, "Hello")
    assert (done.code, "'much' is not a size" in done.err) == (2, True)
    assert known_models.CACHE_LIMIT == "32G"


def test_conversion_needs_no_pytorch(checkpoint: Path, tmp_path: Path) -> None:
    program = (
        "import sys; absent = ('torch', 'scipy', 'transformers', 'huggingface_hub');"
        "sys.modules.update(dict.fromkeys(absent));"
        "from rockledge.cli.main import main;"
        f"sys.exit(main(['quantize', {str(checkpoint)!r}, '-o', {str(tmp_path / 'out')!r}, '--instant',"
        "'--bits', '8']))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    open_artifact(tmp_path / "out").verify()


def test_what_is_not_a_model_is_said_before_anything_is_read_or_written(
    rockledge: Run, cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "home" / "below").mkdir(parents=True)
    os.mkfifo(tmp_path / "pipe")
    for path, said in (
        (tmp_path / "home", "neither a config.json nor a .gguf file"),
        ("/dev/null", "a device or a pipe"),
        (tmp_path / "pipe", "a device or a pipe"),
        ("~no-such-user/model", "does not exist"),
    ):
        failed = rockledge("run", path, "hi", "--json")
        assert (failed.code, said in failed.json["error"]) == (1, True), failed.json
    assert not cache.exists()


def test_a_file_whose_name_is_not_unicode_runs(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", random_model("llama3"))
    odd = file.rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.gguf"))
    environment = {**os.environ, "ROCKLEDGE_CACHE": str(tmp_path / "cache")}
    # Processes of their own: pytest cannot report what is logged of such a name.
    for arguments in (["run", odd, "ab", "--raw", "--max-tokens", "3", "--json"], ["list"]):
        done = subprocess.run(
            [sys.executable, "-m", "rockledge", *arguments], env=environment, capture_output=True
        )
        assert done.returncode == 0, done.stderr
