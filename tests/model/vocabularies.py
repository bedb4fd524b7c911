"""Small tokenizers for tests, trained here with the tokenizers package in the way the original models were
made."""

import json
from itertools import pairwise
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

CORPUS = [
    "The quick brown fox didn't jump over 1234567 lazy dogs; they're ALL asleep in 2024, he'll say.",
    "Öffentliche Straßen sind naß, αβγδ и кириллица, 東京タワー 你好世界, emoji 🙂🙃 and e\u0301 combining.",
    "def main(argv):\n    return {'a': [1, 2, 3]}\n\n\n\tprint(\"x == y && z != w\")  # comment...\r\n",
    "   many    spaces     here \n \n  and newlines\n\n\n\n end",
] * 3

GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def _split(expression: str) -> Any:
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(expression), "isolated"), BYTES])


# As in the tokenizer.json files that the makers of these models published.
PUBLISHED = {
    "gpt-2": GPT2,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), GPT2]),
    "llama-bpe": _split(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "qwen2": _split(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}
CONTROLS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def train_byte_level(pre: str, size: int = 600) -> tokenizers.Tokenizer:
    """A byte-level BPE with the splitting of `pre`; its first three tokens are control tokens."""
    made = tokenizers.Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    made.pre_tokenizer = PUBLISHED[pre]
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=CONTROLS, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(CORPUS, trainer)
    return made


def byte_level_metadata(made: tokenizers.Tokenizer, pre: str) -> dict[str, Any]:
    """What a GGUF file says about such a tokenizer."""
    model = json.loads(made.to_str())["model"]
    tokens = [token for token, _ in sorted(made.get_vocab().items(), key=lambda item: item[1])]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in CONTROLS else 1 for token in tokens],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in model["merges"]],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def sentencepiece_metadata() -> dict[str, Any]:
    """A SentencePiece-like vocabulary: <unk> <s> </s>, 256 bytes, then pieces with falling scores."""
    words = (
        ("the quick brown _the _qu ick th he qu br own _b ow in _in ing __ ____ aa aaa aaaa wn ck ic _t _q")
        .replace("_", "\u2581")
        .split()
    )
    letters = ["\u2581", *"abcdefghijklmnopqrstuvwxyzABCäé,."]
    pieces = [*words, *letters]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *pieces],
        "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * len(pieces)],
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(i) for i in range(len(pieces))],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def sentencepiece_encode(text: str, metadata: dict[str, Any]) -> list[int]:
    """SentencePiece's BPE by definition: join the neighbours whose result scores best (leftmost among equals)
    until none can be joined; what is no piece is spelt in bytes."""
    ids = {token: i for i, token in enumerate(metadata["tokenizer.ggml.tokens"])}
    scores = metadata["tokenizer.ggml.scores"]
    parts = list(("\u2581" + text if text else text).replace(" ", "\u2581"))
    while True:
        joins = [(-scores[ids[a + b]], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in ids]
        if not joins:
            break
        _, i = min(joins)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return [
        i for part in parts
        for i in ([ids[part]] if part in ids else [ids[f"<0x{byte:02X}>"] for byte in part.encode()])
    ]  # fmt: skip
