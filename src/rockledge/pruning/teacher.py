"""The teacher of a run: a Hugging Face checkpoint, because a student is written as one."""

from pathlib import Path

from rockledge.artifact import open_artifact
from rockledge.errors import ArtifactError, CheckpointError
from rockledge.model.checkpoint import find_checkpoint, model_at
from rockledge.model.huggingface import HuggingFaceCheckpoint

_CARRIED = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "generation_config.json",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
    "LICENSE*",
    "NOTICE*",
    "USE_POLICY*",
)
"""Files of the teacher that a student has too: tokenizer, generation, and the terms that it is under."""


def open_teacher(name: str | Path) -> HuggingFaceCheckpoint:
    """The checkpoint at a path or of a Hub id. CheckpointError for what is not one names the way out."""
    path = model_at(find_checkpoint(name))
    refuse_other_forms(path)
    return HuggingFaceCheckpoint.open(path)


def refuse_other_forms(path: Path) -> None:
    """CheckpointError for a GGUF file, and for an artifact."""
    if path.is_file():
        raise CheckpointError(
            f"{path} is a GGUF file, expected a Hugging Face checkpoint; give the original model, or convert "
            "the file with transformers: from_pretrained with gguf_file, then save_pretrained, of model and "
            "tokenizer"
        )
    try:
        made = open_artifact(path)
    except ArtifactError:
        return
    raise CheckpointError(
        f"{path} is an artifact of {made.config.family} weights that are rounded already, expected a Hugging "
        "Face checkpoint; prune the checkpoint that it was made from, and quantize the result"
    )


def carried_files(teacher: Path) -> dict[str, bytes]:
    """By name, what the student has of the teacher's small files."""
    found = sorted({path for pattern in _CARRIED for path in teacher.glob(pattern) if path.is_file()})
    return {str(path.relative_to(teacher)): path.read_bytes() for path in found}
