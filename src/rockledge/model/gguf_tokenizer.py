"""The tokenizer inside a GGUF file, rewritten as the ordinary files: tokenizer.json and its companions.

GGUF stores pieces, types and merges or scores, and gives the splitting rules a one-word name; tokenizer.json
spells them out.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard, TypeVar

from rockledge.errors import CheckpointError
from rockledge.model.bos_eos import BosEosEntries, TokenizerFacts
from rockledge.model.chat import with_named_templates
from rockledge.model.config import ModelConfig

_Item = TypeVar("_Item")

# Token types of GGUF.
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4

# Ids that llama.cpp takes for a SentencePiece vocabulary where the file names none (llama-vocab.cpp). Those
# it takes for a byte-level one, 11 and 11, belong to Falcon and are not taken here.
_SENTENCEPIECE_IDS = {"bos": 1, "eos": 2, "unknown": 0}

# What converters write for "there is no such token".
_NO_ID = 0xFFFFFFFF

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LLAMA3, _QWEN2 = (
    _CONTRACTIONS
    + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    + digits
    + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    for digits in ("{1,3}", "")
)
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Splitting:
    """How text is cut before byte-pair merging: expressions applied one inside the other's pieces.

    `whole_words`: a piece that is in the vocabulary is taken whole, without merging. `compose`: Unicode NFC
    first. `begins`: texts begin with BOS where the file does not say.
    """

    patterns: tuple[str, ...]
    whole_words: bool = False
    compose: bool = False
    begins: bool = False


# By `tokenizer.ggml.pre`; the rules are those that llama.cpp's vocabulary code attaches to each word.
SPLITTINGS: Mapping[str, Splitting] = {
    **dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo", "jais"), Splitting((_GPT2,))),
    **dict.fromkeys(
        ("smollm", "starcoder", "refact", "command-r", "codeshell"), Splitting((r"\p{N}", _GPT2))
    ),
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"),
        Splitting((_LLAMA3,), whole_words=True, begins=True),
    ),
    **dict.fromkeys(("smaug-bpe", "dbrx"), Splitting((_LLAMA3,))),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), Splitting((_QWEN2,), compose=True)),
    "stablelm2": Splitting((_QWEN2,)),
    "tekken": Splitting((_TEKKEN,), whole_words=True, begins=True),
    "default": Splitting((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")),
}


def tokenizer_facts(metadata: Mapping[str, Any]) -> TokenizerFacts:
    """What the metadata say about special tokens; of two tokens of one name, the first has its id."""
    tokens, types = metadata.get("tokenizer.ggml.tokens"), metadata.get("tokenizer.ggml.token_type")
    if not _list_of(tokens, str):
        tokens = []
    kinds = types if isinstance(types, list) else []
    pairs = list(zip(tokens, kinds, strict=False))
    added = [token for token, kind in pairs if kind in (_CONTROL, _USER_DEFINED)]
    text = [token for token, kind in pairs if kind == _USER_DEFINED]

    def given(*keys: str) -> tuple[int, ...]:
        return tuple(i for i in (_id(metadata, key) for key in keys) if i is not None)

    ids = {token: i for i, token in reversed(list(enumerate(tokens)))}
    entries = BosEosEntries("tokenizer.ggml", given("bos"), given("eos", "eot", "eom"))
    return TokenizerFacts((entries,), ids, tuple(added), tuple(text))


def tokenizer_notes(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """What a GGUF file does not say about its tokenizer and has to be guessed, a sentence each. The guesses
    are llama.cpp's (llama-vocab.cpp), which prints a warning for the first."""
    notes = []
    if metadata.get("tokenizer.ggml.model") == "gpt2" and not metadata.get("tokenizer.ggml.pre"):
        notes.append(
            "The file does not say how text is split into words before merging (tokenizer.ggml.pre is "
            'missing): the rule "default" was guessed, as llama.cpp does; if it is the wrong one, token ids '
            "differ and quality suffers. Convert the model to GGUF again to be sure."
        )
    tokens = metadata.get("tokenizer.ggml.tokens")
    if "tokenizer.ggml.token_type" not in metadata:
        notes.append(
            "The file does not say which tokens are control tokens (tokenizer.ggml.token_type is missing): "
            "only those with a role, such as BOS, were taken for one."
        )
    for role in (*_SENTENCEPIECE_IDS, "eot", "eom"):
        guess = _SENTENCEPIECE_IDS.get(role, 0)
        key = f"tokenizer.ggml.{role}_token_id"
        given, found = metadata.get(key), _id(metadata, role)
        if given is None and found is not None and isinstance(tokens, list):
            notes.append(
                f"The key {key} is missing: {guess} ({tokens[guess]!r}) was guessed, as llama.cpp does."
            )
        elif given not in (None, _NO_ID, -1) and found is None:
            notes.append(
                f"The key {key} is {given}, which is not an id of this vocabulary, and was taken for none."
            )
    return tuple(notes)


def tokenizer_files(file: str, metadata: Mapping[str, Any], config: ModelConfig) -> dict[str, bytes]:
    """tokenizer.json, tokenizer_config.json, generation_config.json and, if there is one,
    chat_template.jinja.

    `file` is the name for messages. CheckpointError when the tokenizer is missing, damaged or of an unknown
    kind.
    """
    vocabulary = _vocabulary(file, metadata, config.vocab)
    bos, eos = config.bos, config.eos
    model = metadata.get("tokenizer.ggml.model")
    if model == "gpt2":
        parts = _byte_level(file, metadata, vocabulary)
    elif model == "llama":
        parts = _sentencepiece(file, metadata, vocabulary)
    else:
        raise CheckpointError(
            f"{file}: the tokenizer {model!r} is not supported; supported are gpt2 and llama"
        )
    # Where the file does not say: SentencePiece models begin with BOS, byte-level ones by their kind.
    default = model == "llama" or SPLITTINGS[_pre(metadata)].begins
    add_bos = metadata.get("tokenizer.ggml.add_bos_token", default) and bos is not None
    end = _id(metadata, "eos") if metadata.get("tokenizer.ggml.add_eos_token") is True else None
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": vocabulary.added(),
        **parts,
        "post_processor": _around(vocabulary.tokens, bos if add_bos else None, end),
    }
    names = {
        f"{key}_token": vocabulary.tokens[i]
        for key, i in (
            ("bos", bos),
            ("eos", eos[0] if eos else None),
            ("unk", _id(metadata, "unknown")),
            ("pad", _id(metadata, "padding")),
        )
        if i is not None
    }
    generation = {"bos_token_id": bos, "eos_token_id": list(eos)}
    files = {
        "tokenizer.json": json.dumps(tokenizer, ensure_ascii=False).encode(),
        "tokenizer_config.json": json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "add_bos_token": add_bos,
                "add_eos_token": end is not None,
                "clean_up_tokenization_spaces": False,
                "model_max_length": config.context,
                **names,
            },
            ensure_ascii=False,
            indent=2,
        ).encode(),
        "generation_config.json": json.dumps(generation, indent=2).encode(),
    }
    template = metadata.get("tokenizer.chat_template")
    if isinstance(template, str):
        files["chat_template.jinja"] = template.encode()
    start = "tokenizer.chat_template."
    named = {key.removeprefix(start): v for key, v in metadata.items() if key.startswith(start)}
    return with_named_templates(files, {name: v.encode() for name, v in named.items() if isinstance(v, str)})


@dataclass(frozen=True)
class _Vocabulary:
    tokens: list[str]
    types: list[int]

    def added(self) -> list[dict[str, Any]]:
        return [
            {
                "id": i,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": kind != _USER_DEFINED,
            }
            for i, (token, kind) in enumerate(zip(self.tokens, self.types, strict=True))
            if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED) and token
        ]

    def ids(self) -> dict[str, int]:
        """Piece to id; of pieces that occur twice, the first (the second can never be produced)."""
        return {token: i for i, token in reversed(list(enumerate(self.tokens)))}


def _vocabulary(file: str, metadata: Mapping[str, Any], size: int) -> _Vocabulary:
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not _list_of(tokens, str):
        raise CheckpointError(f"{file} holds no tokenizer; use a GGUF file with its tokenizer inside")
    types = metadata.get("tokenizer.ggml.token_type", [1] * len(tokens))
    if not _list_of(types, int) or len(types) != len(tokens):
        raise CheckpointError(f"{file}: {len(tokens)} tokens do not fit their types; fetch it again")
    if len(tokens) > size:
        raise CheckpointError(
            f"{file}: the tokenizer has {len(tokens)} tokens, but the embedding {size} rows; use a file with "
            "the tokenizer that belongs to its weights"
        )
    return _Vocabulary(tokens, types)


def _byte_level(file: str, metadata: Mapping[str, Any], vocabulary: _Vocabulary) -> dict[str, Any]:
    merges, pre = metadata.get("tokenizer.ggml.merges"), _pre(metadata)
    if pre not in SPLITTINGS:
        raise CheckpointError(
            f"{file}: the pre-tokenizer {pre!r} is not known; known are {', '.join(sorted(SPLITTINGS))}"
        )
    if not _list_of(merges, str):
        raise CheckpointError(f"{file} holds no merges for its byte-pair tokenizer; use a complete file")
    ids = vocabulary.ids()
    pairs = [_pair(file, merge) for merge in merges]
    for left, right in pairs:
        if left not in ids or right not in ids or left + right not in ids:
            raise CheckpointError(
                f"{file}: the merge of {left[:20]!r} and {right[:20]!r} is not in the vocabulary"
            )
    rule = SPLITTINGS[pre]
    splits = [
        {"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False}
        for p in rule.patterns
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "normalizer": {"type": "NFC"} if rule.compose else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, level]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": rule.whole_words,
            "vocab": ids,
            "merges": pairs,
        },
    }


def _pair(file: str, merge: str) -> list[str]:
    # The separating space is the one after the first character: pieces contain no plain space, but may be
    # one.
    cut = merge.find(" ", 1)
    if cut < 0:
        raise CheckpointError(f"{file}: the merge {merge[:40]!r} is not two pieces; fetch it again")
    return [merge[:cut], merge[cut + 1 :]]


def _sentencepiece(file: str, metadata: Mapping[str, Any], vocabulary: _Vocabulary) -> dict[str, Any]:
    scores = metadata.get("tokenizer.ggml.scores")
    if not _list_of(scores, float) or len(scores) != len(vocabulary.tokens):
        raise CheckpointError(f"{file} holds no score for each of its pieces; use a complete file")
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", True)
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    normalizers = [{"type": "Prepend", "prepend": "\u2581"}, spaces] if prefix else [spaces]
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        *([{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []),
    ]
    unknown = next(
        (t for t, kind in zip(vocabulary.tokens, vocabulary.types, strict=True) if kind == _UNKNOWN), None
    )
    return {
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unknown,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocabulary.ids(),
            "merges": _merges_of_scores(vocabulary, scores),
        },
    }


def _merges_of_scores(vocabulary: _Vocabulary, scores: list[float]) -> list[list[str]]:
    """Every way to join two pieces into a third, best score of the result first.

    SentencePiece joins the neighbours whose result scores best; a merge list in that order does the same.
    """
    ids = vocabulary.ids()
    found: list[tuple[float, int, int, str, str]] = []
    for piece, i in ids.items():
        if vocabulary.types[i] in (_UNKNOWN, _CONTROL):
            continue
        for cut in range(1, min(len(piece), _LONGEST_PIECE)):
            left, right = ids.get(piece[:cut]), ids.get(piece[cut:])
            if left is not None and right is not None:
                found.append((-scores[i], left, right, piece[:cut], piece[cut:]))
    return [[left, right] for _, _, _, left, right in sorted(found)]


# Cutting every prefix is quadratic in a piece's length; no vocabulary has longer ones than this, a damaged
# file may.
_LONGEST_PIECE = 1024


def _around(tokens: Sequence[str], first: int | None, last: int | None) -> dict[str, Any] | None:
    """A post-processor that puts these tokens in front of a text and after it; None without any."""
    if first is None and last is None:
        return None

    def special(*ids: int | None) -> list[dict[str, Any]]:
        return [{"SpecialToken": {"id": tokens[i], "type_id": 0}} for i in ids if i is not None]

    front, back, sequence = special(first), special(last), {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [*front, sequence, *back],
        "pair": [*front, sequence, *back, {"Sequence": {"id": "B", "type_id": 0}}, *back],
        "special_tokens": {
            tokens[i]: {"id": tokens[i], "ids": [i], "tokens": [tokens[i]]}
            for i in (first, last)
            if i is not None
        },
    }


def _pre(metadata: Mapping[str, Any]) -> str:
    # Where the file does not say: as llama.cpp, and `tokenizer_notes` tells the user.
    return str(metadata.get("tokenizer.ggml.pre") or "default")


def _id(metadata: Mapping[str, Any], key: str) -> int | None:
    """A special token's id; None where there is none, which some files write as a number past the end."""
    value, tokens = metadata.get(f"tokenizer.ggml.{key}_token_id"), metadata.get("tokenizer.ggml.tokens")
    if value is None and metadata.get("tokenizer.ggml.model") == "llama":
        value = _SENTENCEPIECE_IDS.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not isinstance(tokens, list):
        return None
    return value if 0 <= value < len(tokens) else None


def _list_of(value: Any, kind: type[_Item]) -> TypeGuard[list[_Item]]:
    return isinstance(value, list) and bool(value) and all(isinstance(v, kind) for v in value)
