"""What the tokenizer files of a Hugging Face directory say about special tokens."""

from collections.abc import Mapping
from typing import Any

from rockledge.model.special_ids import Stated, TokenizerFacts


def tokenizer_facts(
    tokenizer: Mapping[str, Any], config: Mapping[str, Any], special: Mapping[str, Any]
) -> TokenizerFacts:
    """From the contents of tokenizer.json, tokenizer_config.json and special_tokens_map.json; empty where
    absent.

    What is malformed says nothing here; the tokenizer itself is checked when it is made.
    """
    ids: dict[str, int] = {}
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, Mapping) else None
    if isinstance(vocabulary, Mapping):
        ids |= {name: i for name, i in vocabulary.items() if _is_id(i)}
    elif isinstance(vocabulary, list):  # Unigram: [piece, score] in the order of ids
        ids |= {
            pair[0]: i for i, pair in enumerate(vocabulary) if isinstance(pair, list) and _is_name(pair[:1])
        }
    added = _added(tokenizer, config)
    stated = tuple(
        Stated(file, bos_names=_names(content.get("bos_token")), eos_names=_names(content.get("eos_token")))
        for file, content in (("tokenizer_config.json", config), ("special_tokens_map.json", special))
    )
    return TokenizerFacts(stated, {**ids, **added}, tuple(added))


def _added(tokenizer: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, int]:
    listed, table = tokenizer.get("added_tokens"), config.get("added_tokens_decoder")
    found = {}
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, Mapping) and _is_id(entry.get("id")) and isinstance(entry.get("content"), str):
            found[entry["content"]] = entry["id"]
    if not found and isinstance(table, Mapping):
        for i, entry in table.items():
            if i.isdecimal() and isinstance(entry, Mapping) and isinstance(entry.get("content"), str):
                found[entry["content"]] = int(i)
    return found


def _names(value: object) -> tuple[str, ...]:
    """A special token as a string, or as an object with `content`; empty for none."""
    content = value.get("content") if isinstance(value, Mapping) else value
    return (content,) if isinstance(content, str) and content else ()


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_name(value: list[Any]) -> bool:
    return bool(value) and isinstance(value[0], str)
