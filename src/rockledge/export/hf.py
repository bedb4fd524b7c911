"""`--to hf`: a directory of safetensors that transformers loads."""

import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from rockledge.artifact.publish import write_file, writing
from rockledge.export.float_file import TYPES, FloatFile
from rockledge.export.hf_settings import hf_settings
from rockledge.export.measure import cost_lines, rounding_cost
from rockledge.export.plain import PlainModel
from rockledge.export.request import ExportRequest, Target, Written
from rockledge.model.embedding_facts import EMBEDDING, SENTENCE_TRANSFORMERS
from rockledge.model.family import StoredTensor, stored_tensors
from rockledge.model.huggingface import HuggingFaceCheckpoint

_PREFIX: Final = "model."
_DTYPES: Final = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}
# Of sentence-transformers, which our own reader takes the way of pooling from (model/embedder.py).
_POOLING_MODES: Final = {"last": "lasttoken", "mean": "mean_tokens"}


def write_hf(model: PlainModel, folder: Path, out: Path, request: ExportRequest) -> Written:
    """Fills `folder`. UsageError where the family's class in transformers cannot hold the model."""
    settings, read = hf_settings(model.config)
    kind = request.kind
    # torch_dtype is what transformers before version 5 read.
    settings |= {"dtype": _DTYPES[kind], "torch_dtype": _DTYPES[kind]}
    tensors = list(stored_tensors(read))
    headless = model.config.headless

    def name_of(tensor: StoredTensor) -> str:
        return tensor.hf.removeprefix(_PREFIX) if headless else tensor.hf

    shapes = {name_of(t): (t.in_hf.rows, *t.shape[1:]) for t in tensors}
    with FloatFile(folder / "model.safetensors", shapes.items(), kind, out) as file:
        for done, tensor in enumerate(tensors, 1):
            values = (
                model.tensor(tensor.name)
                if tensor.name in model.names()
                else np.zeros(tensor.shape, np.float32)  # a bias that the class has and the model lacks
            )
            file.write_rows(name_of(tensor), values - np.float32(tensor.hf_offset), tensor.in_hf.first)
            request.progress("tensors", done, len(tensors))
    files = {name: data for name, data in model.files().items() if name != EMBEDDING}
    files["config.json"] = _json(settings)
    if headless:
        files |= _sentence_transformers(model)
    with writing(out):
        for name, data in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            write_file(folder / name, data)
    written = HuggingFaceCheckpoint.open(folder)
    cost = None if kind == "f32" else rounding_cost(model, {kind: written}, request)
    report = {"type": kind, "architecture": settings["architectures"][0], "cost": cost}
    lines = cost_lines(cost) if cost else ["Nothing was rounded."] if kind == "f32" else []
    return Written(report, tuple(lines), written.notes)


def _sentence_transformers(model: PlainModel) -> dict[str, bytes]:
    """How embeddings are made of the states, for sentence-transformers."""
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    mode = f"pooling_mode_{_POOLING_MODES[model.config.pooling]}"
    facts = json.loads(model.files().get(EMBEDDING, b"{}"))
    prompts = {kind: facts[kind] for kind in ("query", "document") if facts.get(kind)}
    return {
        "modules.json": _json(modules),
        "1_Pooling/config.json": _json({"word_embedding_dimension": model.config.hidden, mode: True}),
        SENTENCE_TRANSFORMERS: _json({"prompts": prompts, "similarity_fn_name": "cosine"}),
    }


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


HF: Final = Target("hf", "safetensors that transformers loads", tuple(TYPES), write_hf)
