"""Models of transformers: loaded to be trained or to teach, with LoRA where asked for, and saved."""

import errno
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from rockledge.distillation.document_masks import keep_documents_apart
from rockledge.distillation.full_disk import says_full
from rockledge.errors import CheckpointError
from rockledge.git_lfs import refuse_pointer

_log = logging.getLogger(__name__)

_SMALL = (".json", ".jinja", ".model", ".txt")  # tokenizer, templates, settings of generation
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "config.json")


def load_model(directory: Path, dtype: torch.dtype) -> Any:
    """The causal language model in a directory, in that type; whose documents do not see each other;
    CheckpointError where transformers cannot load all of it."""
    for file in directory.glob("*.safetensors"):
        refuse_pointer(file, CheckpointError)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            directory, dtype=dtype, output_loading_info=True, local_files_only=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise CheckpointError(f"transformers cannot load {directory} ({reason}); fetch it again") from error
    model, about = loaded
    if missing := sorted(about["missing_keys"]):
        raise CheckpointError(
            f"{directory} lacks {missing[0]}; fetch it again, or give the model with its head"
        )
    if unused := sorted(about["unexpected_keys"]):
        _log.warning(
            "Note: transformers leaves out %d tensors of %s that config.json has no place for, such as %s.",
            len(unused),
            directory.name,
            unused[0],
        )
    model.config.use_cache = False
    keep_documents_apart(model)
    return model


def stored_dtype(directory: Path) -> torch.dtype:
    """The type of most of a checkpoint's numbers."""
    from rockledge.model.safetensors_file import open_safetensors

    counts: dict[str, int] = {}
    for file in directory.glob("*.safetensors"):
        for entry in open_safetensors(file).header.entries.values():
            counts[entry.dtype] = counts.get(entry.dtype, 0) + entry.end - entry.begin
    most = max(counts, key=lambda name: counts[name], default="F32")
    return {"BF16": torch.bfloat16, "F16": torch.float16}.get(most, torch.float32)


def with_lora(model: Any, rank: int, seed: int) -> Any:
    """The model with an adapter on every linear but its head, the only part that learns. Its scale is 2, as
    in most published recipes (alpha = 2 * rank)."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(model, config)


def with_merged(directory: Path, adapter: Path) -> Any:
    """The model in a directory with an adapter merged into its weights, float32."""
    from peft import PeftModel

    return PeftModel.from_pretrained(load_model(directory, torch.float32), adapter).merge_and_unload()


def round_to(model: Any, dtype: torch.dtype) -> None:
    """Rounds the weights to what the type can hold, in place, so that what is measured is what is saved."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(dtype).to(parameter.dtype))


def _second_names(model: Any) -> set[str]:
    """Names of parameters that are stored under another name too, such as the head of a tied model."""
    named = list(model.named_parameters(remove_duplicate=False))
    return {name for name, _ in named} - {name for name, _ in model.named_parameters()}


def save_model(
    model: Any, state: dict[str, torch.Tensor], student: Path, target: Path, dtype: torch.dtype
) -> None:
    """Writes weights of that type and config.json to `target`, and all other small files of the `student`
    directory beside them as they are. OSError where the disk is full."""
    again = _second_names(model)  # copies of another type are not seen to be one matrix
    rounded = {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in state.items()
        if name not in again
    }
    before = model.config.dtype
    model.config.use_cache, model.config.dtype = True, dtype
    try:
        model.save_pretrained(target, state_dict=rounded)
        model.config.dtype = dtype  # transformers writes the type that the model has while it learns
        model.config.save_pretrained(target)
    except SafetensorError as error:
        if says_full(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from error
        raise
    finally:
        model.config.use_cache, model.config.dtype = False, before
    for file in target.glob("*.safetensors"):
        file.chmod((target / "config.json").stat().st_mode)  # safetensors makes them for the owner alone
    written = {file.name for file in target.iterdir()}
    for file in student.iterdir():
        small = file.suffix in _SMALL or file.name.lower().startswith("licen")
        other = file.name in written or file.name.startswith("report") or any(map(file.match, _WEIGHTS))
        if file.is_file() and small and not other:
            shutil.copyfile(file, target / file.name)
