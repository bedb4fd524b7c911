"""What a path holds when it is not a model that can be read: the cause, and the advice that fits it."""

import json
from pathlib import Path

from rockledge.errors import CheckpointError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_ADAPTER = "adapter_config.json"

_MERGE = (
    "merge it into its base model: rockledge quantize BASE --adapter DIR, or peft's merge_and_unload and "
    "save_pretrained"
)
_SAVE = "load it with transformers' AutoModelForCausalLM, call save_pretrained, and give that directory"
_FETCH = "fetch the model in Hugging Face format (config.json and model.safetensors)"

# Files that hold weights in a form that is not read, the most specific first: pattern, what it is, what to
# do.
_OTHER_WEIGHTS = (
    ("adapter_model.*", "the weights of an adapter", _MERGE),
    ("pytorch_model*.bin*", "pickled PyTorch weights", _SAVE),
    ("consolidated*.safetensors", "weights in Mistral's own format", _FETCH),
    ("consolidated*.pth", "weights in Meta's own format", _FETCH),
    ("*.pth", "pickled PyTorch weights", _SAVE),
    ("*.pt", "pickled PyTorch weights", _SAVE),
    ("*.bin", "pickled PyTorch weights", _SAVE),
    ("tf_model.h5", "TensorFlow weights", _FETCH),
    ("flax_model*.msgpack", "Flax weights", _FETCH),
    ("*.onnx", "an ONNX graph", _FETCH),
)


def holds_safetensors(path: Path) -> bool:
    """Whether a directory has weights, or an index of weights, that the Hugging Face reader opens."""
    return (path / WHOLE).is_file() or (path / INDEX).is_file()


def refuse_adapter(path: Path) -> None:
    """CheckpointError for a directory with an adapter, alone or beside a model.

    transformers loads the base model and the adapter from such a directory; the model's own weights beside it
    would be something else.
    """
    if (path / _ADAPTER).is_file():
        base = _base_model(path / _ADAPTER)
        raise CheckpointError(f"{path} holds an adapter (LoRA){base}, not a whole model; {_MERGE}")


def refuse_other_file(path: Path) -> None:
    """CheckpointError for a file whose name shows that it is not a GGUF file."""
    for pattern, what, advice in _OTHER_WEIGHTS:
        if path.match(pattern):
            raise CheckpointError(f"{path.name} is {what}, which is not read; {advice}")
    if path.suffix in (".safetensors", ".json"):
        raise CheckpointError(
            f"{path.name} is one file of a model; give the directory that holds the safetensors"
        )


def why_no_model(path: Path) -> str:
    """One sentence about a directory from which no reader can open a model."""
    config = (path / "config.json").is_file()
    if not any(path.iterdir()):
        return f"{path} is empty; give a GGUF file or the directory of a Hugging Face model"
    if holds_safetensors(path):
        return f"{path} has weights but no config.json; copy it from the original model"
    for shard in sorted(path.glob("model-*-of-*.safetensors")):
        return f"{path} has parts of a model such as {shard.name}, but no {INDEX}; fetch the index"
    for file in sorted(path.glob("*.safetensors")):
        if not any(file.match(pattern) for pattern, _, _ in _OTHER_WEIGHTS):
            return f"{path} has {file.name}, but no {WHOLE}; rename it if it holds the whole model"
    for pattern, what, advice in _OTHER_WEIGHTS:
        for file in sorted(path.glob(pattern)):
            return f"{path} has {file.name}: {what}, which is not read; {advice}"
    inner = sorted(child.parent.name for child in path.glob("*/config.json"))
    if inner and not config:
        return f"{path} holds no model itself, but in {', '.join(inner[:4])} there may be one; name it"
    if config:
        return f"{path} has a config.json but no weights; fetch {WHOLE}, or its parts and their index"
    if list(path.glob("tokenizer*")):
        return (
            f"{path} holds a tokenizer but neither a config.json nor weights; fetch the model's other files"
        )
    return f"{path} holds neither a config.json nor a .gguf file; name the model's directory or the file"


def _base_model(config: Path) -> str:
    try:
        base = json.loads(config.read_bytes()).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError, RecursionError):
        return ""
    return f" of {base[:100]}" if isinstance(base, str) and base else ""
