"""The rule for special tokens: where a text begins and which tokens end a turn, from all that a checkpoint
says."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

# Added tokens that end a turn whatever the files say, because they often record only one of several. A part
# of the list in llama.cpp's src/llama-vocab.cpp: those that models of our families have.
_ENDINGS = frozenset(
    {
        "<|im_end|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|end_of_text|>",
        "<|endoftext|>",
        "<|end|>",
        "<end_of_turn>",
        "<EOT>",
        "</s>",
    }
)


@dataclass(frozen=True)
class Stated:
    """What one file says: ids and names of the token that begins texts, and of those that end a turn."""

    source: str
    bos_ids: tuple[int, ...] = ()
    eos_ids: tuple[int, ...] = ()
    bos_names: tuple[str, ...] = ()
    eos_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class TokenizerFacts:
    """`stated`: what the tokenizer's files say; `ids`: every token; `added`: names of those added to the
    vocabulary, control tokens among them; `count`: tokens in all, None where there is no tokenizer to
    count."""

    stated: tuple[Stated, ...] = ()
    ids: Mapping[str, int] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    count: int | None = None


@dataclass(frozen=True)
class SpecialIds:
    """`bos` begins a text (None: nothing does), every one of `eos` ends a turn; `notes` say what was
    dropped."""

    bos: int | None
    eos: tuple[int, ...]
    notes: tuple[str, ...] = ()


def special_ids(files: Iterable[Stated], tokenizer: TokenizerFacts, vocab: int) -> SpecialIds:
    """Collects the special tokens of a checkpoint with `vocab` rows of embedding.

    `files` are those beside the tokenizer's, the surest first: all their ends of a turn count, by id and by
    name, and the first beginning. An id that no token has can be neither read nor produced; files write it
    where there is no such token.
    """
    ends: list[int] = []
    begins: list[int] = []
    notes: list[str] = []
    limit = vocab if tokenizer.count is None else min(vocab, tokenizer.count)
    ids = tokenizer.ids
    for file in (*files, *tokenizer.stated):
        for kind, found, numbers, names in (
            ("bos", begins, file.bos_ids, file.bos_names),
            ("eos", ends, file.eos_ids, file.eos_names),
        ):
            found += [i for i in numbers if 0 <= i < limit]
            found += [ids[name] for name in names if name in ids]
            notes += [
                f"{file.source}: {kind}_token_id {i} is outside the vocabulary of {limit} tokens and is "
                "not used"
                for i in numbers
                if not 0 <= i < limit
            ]
            notes += [
                f"{file.source}: the {kind}_token {name!r} is not a token of the tokenizer and is not used"
                for name in names
                if ids and name not in ids
            ]
    ends += sorted(ids[name] for name in tokenizer.added if name in _ENDINGS and name in ids)
    return SpecialIds(begins[0] if begins else None, tuple(dict.fromkeys(ends)), tuple(notes))
