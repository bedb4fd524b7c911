"""A tokenizer as GGUF metadata: pieces, types, merges or scores, and a word for the way text is split.

Facts: llama.cpp's src/llama-vocab.cpp. Whether it is the same tokenizer is tried, not assumed: what our own
reader makes of the metadata has to read the built-in texts as the model's own files do.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from rockledge.errors import CheckpointError, UsageError
from rockledge.model.chat import template_sources
from rockledge.model.config import ModelConfig
from rockledge.model.gguf_tokenizer import SPLITTINGS, Splitting, tokenizer_files
from rockledge.model.special_tokens import TOKENIZER_CONFIG, json_object
from rockledge.model.tokenizer import Tokenizer

Metadata = dict[str, Any]

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_SPACE: Final = "\u2581"
_DIGIT: Final = r"\p{N}"
_ROLES: Final = ("eos", "eot", "eom")


def vocabulary(files: Mapping[str, bytes], config: ModelConfig) -> Metadata:
    """The keys "tokenizer....", from the contents of tokenizer.json and the files beside it. UsageError where
    GGUF has no word for the tokenizer."""
    content = json.loads(files["tokenizer.json"])
    model, settings = content["model"], json_object(files, TOKENIZER_CONFIG)
    if model.get("type") != "BPE":
        raise UsageError(
            f"the tokenizer is of the type {str(model.get('type'))[:40]!r}, expected BPE, the one that GGUF "
            "files hold; export to hf instead"
        )
    tokens, types = _tokens(content, config.vocab, byte_pieces=bool(model.get("byte_fallback")))
    ours = Tokenizer.from_files(files, config.vocab)
    found: Metadata = {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.add_bos_token": bool(ours.beginning),
        "tokenizer.ggml.add_eos_token": bool(ours.ending),
    }
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ", 1)) for m in model["merges"]]
    if model.get("byte_fallback"):
        found |= {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.pre": "default",
            "tokenizer.ggml.scores": _scores(tokens, merges),
            "tokenizer.ggml.add_space_prefix": ours.puts_space,
        }
    else:
        found |= {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": _word(content),
            "tokenizer.ggml.merges": [" ".join(pair) for pair in merges],
        }
    ids: dict[str, int | None] = dict(zip(_ROLES, config.eos, strict=False))
    ids |= {"bos": config.bos if config.bos is not None else ours.bos}
    for role, key in (("unknown", "unk_token"), ("padding", "pad_token")):
        if (named := _content(settings.get(key))) in tokens:
            ids[role] = tokens.index(named)
    found |= {f"tokenizer.ggml.{role}_token_id": token for role, token in ids.items() if token is not None}
    for name, template in template_sources(files).items():
        key = "tokenizer.chat_template" + ("" if name == "default" else f".{name}")
        found[key] = template
    return found


def check_vocabulary(metadata: Metadata, files: Mapping[str, bytes], config: ModelConfig) -> None:
    """UsageError where a text has other tokens with the metadata than with the model's own files."""
    from rockledge.quantization.calibration.texts import default_calibration

    own = Tokenizer.from_files(files, config.vocab)
    try:
        theirs = Tokenizer.from_files(tokenizer_files("the export", metadata, config), config.vocab)
    except CheckpointError as error:
        raise UsageError(f"the tokenizer cannot be said in GGUF ({error}); export to hf instead") from error
    for text in (" a  b\n\n\tc 1234 \u00e9\u4e2d ", *(text[:4000] for text in default_calibration())):
        if own.encode(text, bos=True) != theirs.encode(text, bos=True):
            raise UsageError(
                f"the tokenizer cannot be said in GGUF: {text[:20]!r} has other tokens there; export to hf "
                "instead"
            )


def _tokens(content: Mapping[str, Any], rows: int, *, byte_pieces: bool) -> tuple[list[str], list[int]]:
    """A piece and a type for every row of the embedding."""
    tokens = [f"[PAD{i}]" for i in range(rows)]
    types = [_UNUSED] * rows
    for piece, i in content["model"]["vocab"].items():
        if i < rows:
            byte = byte_pieces and len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")
            tokens[i], types[i] = piece, _BYTE if byte else _NORMAL
    unknown = content["model"].get("unk_token")
    for added in content.get("added_tokens", ()):
        if (i := added["id"]) < rows:
            special = _UNKNOWN if added["content"] == unknown else _CONTROL
            tokens[i], types[i] = added["content"], special if added["special"] else _USER_DEFINED
    return tokens, types


def _scores(tokens: list[str], merges: list[tuple[str, ...]]) -> list[float]:
    """The earlier two pieces are merged, the better the score of what they become."""
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        ranks.setdefault("".join(pair), rank)
    return [-float(ranks.get(token, len(merges))) for token in tokens]


def _word(content: Mapping[str, Any]) -> str:
    """llama.cpp's word for the way in which text is split before merging."""
    rule = Splitting(
        _patterns(content.get("pre_tokenizer") or {}),
        whole_words=bool(content["model"].get("ignore_merges")),
        compose=(content.get("normalizer") or {}).get("type") == "NFC",
    )
    for word, known in SPLITTINGS.items():
        if (known.patterns, known.whole_words, known.compose) == (
            rule.patterns,
            rule.whole_words,
            rule.compose,
        ):
            return word
    raise UsageError(
        "the way in which the tokenizer splits text has no name in GGUF files that is known here; export to "
        "hf instead"
    )


_GPT2: Final = SPLITTINGS["gpt-2"].patterns[0]


def _patterns(step: Mapping[str, Any]) -> tuple[str, ...]:
    """The expressions that a pre-tokenizer cuts by, one inside the other's pieces."""
    kind = step.get("type")
    if kind == "Sequence":
        return tuple(pattern for one in step["pretokenizers"] for pattern in _patterns(one))
    if kind == "Split":
        return (str(step["pattern"].get("Regex", step["pattern"].get("String"))),)
    if kind == "Digits":
        return (_DIGIT,) if step.get("individual_digits") else (_DIGIT + "+",)
    if kind == "ByteLevel":
        return (_GPT2,) if step.get("use_regex", True) else ()
    return (str(kind),)


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token
