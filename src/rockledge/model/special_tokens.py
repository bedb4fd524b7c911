"""The special tokens of a checkpoint, collected from every file that may name them.

The rules are those of transformers 5 (`PreTrainedTokenizerBase._from_pretrained`), so that a directory means
the same in both.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tokenizers import AddedToken

from rockledge.errors import CheckpointError

TOKENIZER_CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS_MAP = "special_tokens_map.json"
ADDED_TOKENS = "added_tokens.json"

# Lists of further special tokens, which have no name of their own.
_EXTRA = ("extra_special_tokens", "additional_special_tokens")


def special_tokens(files: Mapping[str, bytes]) -> dict[str, str]:
    """Texts of the named special tokens, by name: {"bos_token": "<s>", ...}.

    They are in tokenizer_config.json. An older checkpoint, one without `added_tokens_decoder` there, may
    have special_tokens_map.json beside it, whose entries win. A token is a string or an object with
    `content`. CheckpointError when a file is not a JSON object.
    """
    return {key: token.content for key, token in _named(files).items()}


def declared_tokens(files: Mapping[str, bytes]) -> dict[int, AddedToken]:
    """Tokens by id that are declared outside of tokenizer.json: in `added_tokens_decoder` of
    tokenizer_config.json, or, without it, in added_tokens.json. CheckpointError when one is not a token."""
    decoder = token_config(files).get("added_tokens_decoder")
    if decoder is not None:
        try:
            return {int(i): _token(value, special=False) for i, value in sorted(decoder.items(), key=_id)}
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"added_tokens_decoder in {TOKENIZER_CONFIG} is not an object of tokens by id; fetch it again"
            ) from error
    listed = json_object(files, ADDED_TOKENS)
    if not all(isinstance(i, int) for i in listed.values()):
        raise CheckpointError(f"{ADDED_TOKENS} is not an object of ids by token; fetch it again")
    special = {token.content for token in all_special_tokens(files)}
    return {
        i: AddedToken(text, normalized=text not in special, special=text in special)
        for text, i in sorted(listed.items(), key=lambda item: item[1])
    }


def all_special_tokens(files: Mapping[str, bytes]) -> list[AddedToken]:
    """Every token that some file calls special, named or not, each once."""
    return list({token.content: token for token in (*_named(files).values(), *_extra(files))}.values())


def token_config(files: Mapping[str, bytes]) -> dict[str, Any]:
    """tokenizer_config.json as an object, empty when absent; CheckpointError if it is not JSON."""
    return json_object(files, TOKENIZER_CONFIG)


def json_object(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    """A JSON file among `files`, empty when absent; CheckpointError if it does not hold an object."""
    try:
        value = json.loads(files.get(name, b"{}"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{name} is not readable JSON; fetch it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{name} is not a JSON object; fetch it again")
    return value


def _named(files: Mapping[str, bytes]) -> dict[str, AddedToken]:
    entries = _entries(files)
    named = {key: value for key, value in entries.items() if key.endswith("_token")}
    # Newer files give further tokens names of their own here.
    extra = entries.get("extra_special_tokens")
    named |= extra if isinstance(extra, dict) else {}
    return {key: _token(value, special=True) for key, value in named.items() if _is_token(value)}


def _extra(files: Mapping[str, bytes]) -> Iterator[AddedToken]:
    entries = _entries(files)
    for values in (entries.get(key) for key in _EXTRA):
        if isinstance(values, list):
            yield from (_token(value, special=True) for value in values if _is_token(value))


def _entries(files: Mapping[str, bytes]) -> dict[str, Any]:
    config = token_config(files)
    # A file that declares its added tokens is complete, and the map a leftover.
    return (
        config if "added_tokens_decoder" in config else {**config, **json_object(files, SPECIAL_TOKENS_MAP)}
    )


def _is_token(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, dict) and isinstance(value.get("content"), str))


def _token(value: Any, special: bool) -> AddedToken:
    if isinstance(value, str):
        return AddedToken(value, special=special)
    flags = {key: bool(value.get(key)) for key in ("single_word", "lstrip", "rstrip")}
    special = bool(value.get("special", special))
    return AddedToken(
        value["content"], normalized=bool(value.get("normalized", not special)), special=special, **flags
    )


def _id(entry: tuple[str, Any]) -> int:
    return int(entry[0])
