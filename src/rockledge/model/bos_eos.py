"""The rule for BOS and EOS: which token begins a text and which tokens end a turn, from all that a checkpoint
says."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

# Added tokens that always end a turn, whatever the files say, because they often record only one of several.
# A part of the list in llama.cpp's src/llama-vocab.cpp: those that models of our families have.
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

# Of these, what other vocabularies have as ordinary text: in Gemma's, it is the end tag of struck out HTML.
_ALSO_TEXT = frozenset({"</s>"})

# What files write for "there is no such token".
_NO_ID = (-1, 0xFFFFFFFF)


@dataclass(frozen=True)
class BosEosEntries:
    """What one file says: ids and names of the token that begins texts, and of those that end a turn."""

    source: str
    bos_ids: tuple[int, ...] = ()
    eos_ids: tuple[int, ...] = ()
    bos_names: tuple[str, ...] = ()
    eos_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class TokenizerFacts:
    """`entries` of the tokenizer's files; `ids`: every token; `added`: names of those added to the
    vocabulary, control tokens among them; `text`: those of them that are said to be ordinary text."""

    entries: tuple[BosEosEntries, ...] = ()
    ids: Mapping[str, int] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    text: tuple[str, ...] = ()


@dataclass(frozen=True)
class BosEos:
    """`bos` begins a text (None: nothing does), every one of `eos` ends a turn; `notes` say what was
    dropped."""

    bos: int | None
    eos: tuple[int, ...]
    notes: tuple[str, ...] = ()


def bos_and_eos(files: Iterable[BosEosEntries], tokenizer: TokenizerFacts, vocab: int) -> BosEos:
    """Collects BOS and EOS of a checkpoint with `vocab` rows of embedding.

    `files` are those beside the tokenizer's, the most reliable first: all their end-of-turn tokens count, by
    id and by name, and the first BOS. An id that no token has can be neither read nor produced; files write
    it where there is no such token.
    """
    ends: list[int] = []
    begins: list[int] = []
    notes: list[str] = []
    # Names without a row are left to `check_agreement`, which knows whether anything uses them.
    ids = {name: i for name, i in tokenizer.ids.items() if i < vocab}
    for file in (*files, *tokenizer.entries):
        for kind, found, numbers, names in (
            ("bos", begins, file.bos_ids, file.bos_names),
            ("eos", ends, file.eos_ids, file.eos_names),
        ):
            found += [i for i in numbers if 0 <= i < vocab]
            found += [ids[name] for name in names if name in ids]
            notes += [
                f"{file.source} has {kind}_token_id {i}, which is outside the vocabulary of {vocab} tokens "
                "and is not used."
                for i in numbers
                if not 0 <= i < vocab and i not in _NO_ID
            ]
    endings = _ENDINGS - (_ALSO_TEXT & {*tokenizer.text})
    ends += sorted(ids[name] for name in tokenizer.added if name in endings and name in ids)
    return BosEos(begins[0] if begins else None, tuple(dict.fromkeys(ends)), tuple(notes))
