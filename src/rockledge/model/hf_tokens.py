"""What a Hugging Face directory's tokenizer files say about the beginning of a text and ends of a turn."""

from collections.abc import Mapping
from typing import Any

from rockledge.model.bos_eos import BosEosEntries, TokenizerFacts
from rockledge.model.special_tokens import (
    SPECIAL_TOKENS_MAP,
    TOKENIZER_CONFIG,
    declared_tokens,
    json_object,
    special_tokens,
)


def tokenizer_facts(files: Mapping[str, bytes]) -> TokenizerFacts:
    """From the contents of the small files, those that exist.

    The beginning of a text is the one that transformers takes (`special_tokens`); an end of a turn counts
    whichever file names it. CheckpointError when a file is not a JSON object.
    """
    tokenizer = json_object(files, "tokenizer.json")
    declared = declared_tokens(files)
    added = {token.content: i for i, token in declared.items()} | _added(tokenizer)
    special = {token.content for token in declared.values() if token.special} | {
        *_added(tokenizer, special=True)
    }
    text = tuple(name for name in added if name not in special)
    begins = special_tokens(files).get("bos_token")
    entries = [BosEosEntries(TOKENIZER_CONFIG, bos_names=() if begins is None else (begins,))]
    for name in (TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP):
        entries.append(BosEosEntries(name, eos_names=_names(json_object(files, name).get("eos_token"))))
    return TokenizerFacts(tuple(entries), {**_vocabulary(tokenizer), **added}, tuple(added), text)


def _vocabulary(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, Mapping) else None
    if isinstance(vocabulary, Mapping):
        return {name: i for name, i in vocabulary.items() if _is_id(i)}
    if isinstance(vocabulary, list):  # Unigram: [piece, score] in the order of ids
        pieces = enumerate(vocabulary)
        return {
            pair[0]: i for i, pair in pieces if isinstance(pair, list) and pair and isinstance(pair[0], str)
        }
    return {}


def _added(tokenizer: Mapping[str, Any], *, special: bool = False) -> dict[str, int]:
    """Names and ids of tokenizer.json's added tokens, all of them or the `special` ones."""
    listed = tokenizer.get("added_tokens")
    return {
        entry["content"]: entry["id"]
        for entry in (listed if isinstance(listed, list) else [])
        if isinstance(entry, Mapping)
        and _is_id(entry.get("id"))
        and isinstance(entry.get("content"), str)
        and (entry.get("special") is True or not special)
    }


def _names(value: object) -> tuple[str, ...]:
    """A special token as a string, or as an object with `content`; empty for none."""
    content = value.get("content") if isinstance(value, Mapping) else value
    return (content,) if isinstance(content, str) and content else ()


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
