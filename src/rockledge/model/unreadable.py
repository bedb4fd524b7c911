"""What a path holds when it is not a model that can be read: the cause, and the advice that fits it."""

import json
from pathlib import Path

from rockledge.errors import CheckpointError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_ADAPTER = "adapter_config.json"

# Files that hold weights in a form that is not read, the most telling first: pattern, what it is.
_OTHER_WEIGHTS = (
    ("adapter_model.*", "the weights of an adapter"),
    ("pytorch_model*.bin*", "pickled PyTorch weights"),
    ("consolidated*.safetensors", "weights under the names of Mistral's own format"),
    ("consolidated*.pth", "weights in Meta's own format"),
    ("*.pth", "pickled PyTorch weights"),
    ("*.pt", "pickled PyTorch weights"),
    ("*.bin", "pickled PyTorch weights"),
    ("tf_model.h5", "TensorFlow weights"),
    ("flax_model*.msgpack", "Flax weights"),
    ("*.onnx", "an ONNX graph"),
)
_CONVERT = "load it with transformers' AutoModelForCausalLM, call save_pretrained, and give that directory"


def holds_safetensors(path: Path) -> bool:
    """Whether a directory has weights, or an index of weights, that the Hugging Face reader opens."""
    return (path / WHOLE).is_file() or (path / INDEX).is_file()


def refuse_adapter(path: Path) -> None:
    """CheckpointError for a directory with an adapter, alone or beside a model.

    transformers loads the base model and the adapter from such a directory; the model's own weights beside it
    would be something else.
    """
    if (path / _ADAPTER).is_file():
        raise CheckpointError(
            f"{path} holds an adapter (LoRA){_base_model(path / _ADAPTER)}, not a whole model: merge it "
            "first (peft's "
            "merge_and_unload, then save_pretrained) and give the merged model"
        )


def refuse_other_file(path: Path) -> None:
    """CheckpointError for a file that is known by its name not to be a GGUF file."""
    if path.suffix == ".safetensors" or path.name in ("config.json", INDEX):
        raise CheckpointError(
            f"{path.name} is a part of a model; give the directory that holds the safetensors and their "
            "config.json"
        )
    for pattern, what in _OTHER_WEIGHTS:
        if path.match(pattern):
            raise CheckpointError(f"{path.name} is {what}, which is not read; {_CONVERT}")


def why_no_model(path: Path) -> str:
    """One sentence about a directory from which no reader can open a model."""
    config = (path / "config.json").is_file()
    if not any(path.iterdir()):
        return f"{path} is empty; give a GGUF file or the directory of a Hugging Face model"
    if holds_safetensors(path):
        return f"{path} has weights but no config.json; copy it from the original model"
    shards = sorted(path.glob("model-*-of-*.safetensors"))
    if shards:
        return (
            f"{path} has {len(shards)} parts of a model ({shards[0].name}) but no {INDEX}, which says "
            "what is in "
            "them; fetch the index"
        )
    others = [file for file in sorted(path.glob("*.safetensors")) if not file.match("consolidated*")]
    if others:
        return (
            f"{path} has {others[0].name} but no {WHOLE}; give the weights that name if they are the "
            "whole model"
        )
    for pattern, what in _OTHER_WEIGHTS:
        for file in sorted(path.glob(pattern)):
            return f"{path} has {file.name}: {what}, which is not read; {_CONVERT}"
    inner = sorted(child.parent.name for child in path.glob("*/config.json"))
    if inner and not config:
        return (
            f"{path} holds no model itself, but directories that may: {', '.join(inner[:4])}; name one "
            "of them"
        )
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
