"""A directory with a small tokenizer, changed as a test asks, and what transformers makes of it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers

CASES = Path(__file__).parent / "cases"
_SOURCE = CASES / "f13_map"


def written(
    directory: Path,
    tokenizer: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    others: Mapping[str, Any] | None = None,
) -> Path:
    """The byte-level tokenizer of 300 tokens (297 to 299 special) in `directory`, with changed keys of
    tokenizer.json and tokenizer_config.json (None takes a key away) and other files: text, or JSON."""
    directory.mkdir(exist_ok=True)
    for name, changes in (("tokenizer.json", tokenizer), ("tokenizer_config.json", config)):
        content = {**json.loads((_SOURCE / name).read_text()), **(changes or {})}
        if name == "tokenizer_config.json":
            content = {key: value for key, value in content.items() if value is not None}
        (directory / name).write_text(json.dumps(content))
    (directory / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 400}))
    for name, content in (others or {}).items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return directory


def small_files(directory: Path) -> dict[str, bytes]:
    """The JSON and Jinja files of a directory, as readers hand them on."""
    return {
        path.name: path.read_bytes() for path in directory.iterdir() if path.suffix in (".json", ".jinja")
    }


def auto_tokenizer(directory: Path) -> Any:
    """transformers' tokenizer for the directory."""
    return transformers.AutoTokenizer.from_pretrained(directory)
