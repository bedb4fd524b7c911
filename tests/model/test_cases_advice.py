"""What is not a whole model: adapters, pointers, other formats and missing files, with advice that fits."""

import shutil
from pathlib import Path

import pytest
from tests.model.checkpoints import random_model, write_gguf
from tests.model.opened_cases import CASES, INDEX, WEIGHTS, changed, refused

from rockledge.model.checkpoint import open_checkpoint

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"


def test_shards_without_an_index_are_named() -> None:
    refused(CASES / "f15c_no_index", r"such as model-00001-of-00001.safetensors, but no .*; fetch the index")


def test_an_adapter_is_named_as_one() -> None:
    refused(CASES / "f15e_lora", r"holds an adapter \(LoRA\) of some/base, not a whole model; merge it into")
    refused(CASES / "f15e_lora/adapter_model.safetensors", "the weights of an adapter")


def test_an_adapter_beside_a_model_is_named_as_one(tmp_path: Path) -> None:
    path = changed("f4_head", tmp_path)
    shutil.copy(CASES / "f15e_lora/adapter_config.json", path)
    refused(path, r"holds an adapter \(LoRA\)")


def test_an_adapter_under_a_models_name_is_named_as_one(tmp_path: Path) -> None:
    path = changed("f4_head", tmp_path)
    shutil.copy(CASES / "f15e_lora/adapter_model.safetensors", path / WEIGHTS)
    refused(path, r"tensors of an adapter \(LoRA\)")


def test_an_adapter_in_a_gguf_file_is_named_as_one(tmp_path: Path) -> None:
    metadata = {"general.type": "adapter", "adapter.type": "lora"}
    refused(
        write_gguf(tmp_path / "a.gguf", random_model("llama2"), metadata=metadata), r"is an adapter \(LoRA\)"
    )


@pytest.mark.parametrize("name", [WEIGHTS, "config.json", "tokenizer.json", "generation_config.json", INDEX])
def test_a_git_lfs_pointer_is_named_as_one(name: str, tmp_path: Path) -> None:
    path = changed("f4_head", tmp_path)
    if name == INDEX:
        (path / WEIGHTS).unlink()
    (path / name).write_text(LFS)
    refused(path, rf"{name} is a Git LFS pointer, not the file itself; run `git lfs pull` in")


def test_a_gguf_file_may_be_a_git_lfs_pointer_too(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_text(LFS)
    refused(tmp_path / "a.gguf", r"a\.gguf is a Git LFS pointer")
    refused(tmp_path, r"a\.gguf is a Git LFS pointer")


def test_a_gguf_file_beside_a_bare_config_json_is_opened(tmp_path: Path) -> None:
    path = changed("f4_head", tmp_path)
    (path / WEIGHTS).unlink()
    shutil.copy(CASES / "f3_type.gguf", path)
    assert open_checkpoint(path).stored.startswith("GGUF")
    shutil.copy(CASES / "f3_notype.gguf", path)
    refused(path, r"holds 2 GGUF models \(f3_notype.gguf, f3_type.gguf\); name one of them")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "is empty; give a GGUF file"),
        (
            ["tokenizer.json", "tokenizer_config.json"],
            "holds a tokenizer but neither a config.json nor weights",
        ),
        (["config.json"], r"a config.json but no weights; fetch model.safetensors"),
        ([WEIGHTS], "weights but no config.json; copy it"),
        (["config.json", "pytorch_model.bin"], "pytorch_model.bin: pickled PyTorch weights.*save_pretrained"),
        (["config.json", "pytorch_model.bin.index.json"], "pickled PyTorch weights"),
        (["params.json", "consolidated.00.pth"], "consolidated.00.pth: weights in Meta's own format"),
        (["params.json", "consolidated.safetensors"], "Mistral's own format"),
        (
            ["config.json", "model.fp16.safetensors"],
            "model.fp16.safetensors, but no model.safetensors; rename it",
        ),
        (["inner/config.json"], "in inner there may be one"),
        (["README.md"], "neither a config.json nor a .gguf file"),
    ],
)
def test_advice_fits_what_a_directory_holds(files: list[str], said: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"{}")
    refused(tmp_path, said)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (WEIGHTS, "give the directory that holds the safetensors"),
        ("config.json", "give the directory"),
        ("pytorch_model.bin", "is pickled PyTorch weights, which is not read"),
        ("model.txt", "not a GGUF file"),
    ],
)
def test_advice_fits_what_a_file_is(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(bytes(64))
    refused(tmp_path / name, said)
