"""Names on the Hub, and which files of a repository a model consists of. The lists of files are those of
public repositories, shortened."""

import pytest

from rockledge.errors import CheckpointError
from rockledge.model.hub import HubName, hub_name, sizes_of, wanted_files

# mistralai/Mistral-7B-Instruct-v0.3 holds its weights twice.
MISTRAL = [
    ".gitattributes",
    "README.md",
    "config.json",
    "consolidated.safetensors",
    "generation_config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "params.json",
    "tokenizer.json",
    "tokenizer.model.v3",
]
# unsloth/Llama-3.3-70B-Instruct-GGUF keeps large files in folders, and in parts.
UNSLOTH = [
    "README.md",
    "Llama-3.3-70B-Instruct-Q4_K_M.gguf",
    "Llama-3.3-70B-Instruct-UD-Q4_K_XL.gguf",
    "Llama-3.3-70B-Instruct-Q8_0/Llama-3.3-70B-Instruct-Q8_0-00001-of-00002.gguf",
    "Llama-3.3-70B-Instruct-Q8_0/Llama-3.3-70B-Instruct-Q8_0-00002-of-00002.gguf",
    "config.json",
    "imatrix_unsloth.gguf",
]
PARTS = tuple(UNSLOTH[3:5])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/name", HubName("org/name")),
        ("org/Some-model.v1_2", HubName("org/Some-model.v1_2")),
        ("org/name:file.gguf", HubName("org/name", "file.gguf")),
        ("org/name:folder/file.gguf", HubName("org/name", "folder/file.gguf")),
        ("name", None),
        ("./org/name", None),
        ("../name", None),
        ("/org/name", None),
        ("org/name/more", None),
        ("org/", None),
        ("org/name:", None),
        ("org/..", None),
    ],
)
def test_names(text: str, expected: HubName | None) -> None:
    assert hub_name(text) == expected
    assert expected is None or str(expected) == text


def test_the_modules_of_sentence_transformers_come_along() -> None:
    names = ["modules.json", "config_sentence_transformers.json", "1_Pooling/config.json"]
    files = ["config.json", "model.safetensors", "onnx/config.json", "2_Normalize/readme.md", *names]
    wanted = wanted_files(HubName("Qwen/Qwen3-Embedding-0.6B"), files)
    assert set(wanted.files) == {"config.json", "model.safetensors", *names}


def test_of_a_directory_the_weights_come_once() -> None:
    wanted = wanted_files(HubName("mistralai/Mistral-7B-Instruct-v0.3"), MISTRAL)
    assert wanted.opened is None
    assert set(MISTRAL) - set(wanted.files) == {
        ".gitattributes",
        "consolidated.safetensors",
        "tokenizer.model.v3",
    }


@pytest.mark.parametrize(
    ("file", "opened"),
    [
        ("Q4_K_M", UNSLOTH[1]),
        ("q4_k_xl", UNSLOTH[2]),
        ("Q8_0", PARTS[0]),
        (UNSLOTH[1], UNSLOTH[1]),
        (PARTS[0], PARTS[0]),
        (PARTS[1], PARTS[0]),
    ],
)
def test_a_gguf_file_is_named_by_itself_or_its_quantisation(file: str, opened: str) -> None:
    wanted = wanted_files(HubName("unsloth/x", file), UNSLOTH)
    assert wanted.opened == opened
    models = [name for name in wanted.files if name.endswith(".gguf")]
    assert models == ([opened] if opened not in PARTS else list(PARTS))


@pytest.mark.parametrize(
    ("name", "files", "said"),
    [
        ("o/n", UNSLOTH, "holds 3 GGUF models; name one as o/n:FILE"),
        ("o/n:Q4", UNSLOTH, "fits 2 GGUF files; name one of"),
        ("o/n:Q5_K_M", UNSLOTH, "holds no GGUF file Q5_K_M; name one of"),
        ("o/n:Q8_0", MISTRAL, "holds no GGUF files; leave out :Q8_0"),
        ("o/n", ["README.md", "model.onnx"], "neither safetensors nor GGUF files"),
        ("o/n", ["unet/model.safetensors", "model_index.json"], "not a whole model"),
        ("o/n", ["mmproj-model-f16.gguf"], "not a whole model"),
        ("o/n", [], "neither safetensors nor GGUF files"),
    ],
)
def test_what_is_not_one_model_is_said(name: str, files: list[str], said: str) -> None:
    found = hub_name(name)
    assert found is not None
    with pytest.raises(CheckpointError, match=said):
        wanted_files(found, files)


def test_parts_that_the_repository_does_not_have() -> None:
    wanted = wanted_files(HubName("o/n", "Q8_0"), UNSLOTH[:4])
    with pytest.raises(CheckpointError, match="00002-of-00002"):
        sizes_of(wanted, dict.fromkeys(UNSLOTH[:4], 1))


@pytest.mark.parametrize("file", ["../x.gguf", "a/../../x.gguf", "/x.gguf"])
def test_a_file_elsewhere_is_not_part_of_a_repository(file: str) -> None:
    wanted = wanted_files(HubName("org/name"), [file])
    with pytest.raises(CheckpointError, match="called"):
        sizes_of(wanted, {file: 1})
