"""The data of a distillation as sequences: read, tokenised, split and packed."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rockledge.distillation.documents import Document, held_out, read_documents
from rockledge.distillation.learnt_tokens import Tokens, conversation_tokens, text_tokens
from rockledge.distillation.packing import Packed, packed
from rockledge.distillation.prompts import Prompts, prompts_of
from rockledge.errors import UsageError
from rockledge.model.chat import ChatTemplate
from rockledge.model.tokenizer import Tokenizer


@dataclass(frozen=True)
class TrainingText:
    """`train` and `held_out` share no document, or, where the data is one document, no token. `sha256` is of
    the tokens; `notes` are sentences for the report. `prompts` are what the student answers on its own, None
    where it does not."""

    train: Packed
    held_out: Packed
    sha256: str
    notes: tuple[str, ...]
    prompts: Prompts | None = None


def training_text(
    files: Mapping[str, bytes],
    end: int | None,
    data: Sequence[str | Path],
    *,
    held_out_file: str | Path | None,
    share: float,
    length: int,
    answer: int = 0,
    left_out: frozenset[str] = frozenset(),
    must_measure: bool = True,
) -> TrainingText:
    """The sequences of `data` for a model with these small files, whose texts end with the token `end`, and
    prompts that leave room for `answer` tokens of a sequence, where that is not 0.

    Of one document alone the last `share` of its tokens is held out. Documents with a digest in `left_out`
    are not learnt. Too little for a sequence may be held out where nothing `must_measure`; a note says so.

    Raises:
        UsageError: the data is shorter than a sequence, or no conversation suits the model.
    """
    tokenizer, chat = Tokenizer.from_files(files), ChatTemplate.from_files(files)
    read = read_documents(data)
    notes = list(read.notes)
    learn, kept = [d for d in read.documents if d.digest not in left_out], []
    if len(learn) < len(read.documents):
        count = len(read.documents) - len(learn)
        notes.append(f"Of the documents {count} are left out: questions about them are held out.")
    if held_out_file is not None:
        apart = read_documents([held_out_file])
        known = {document.digest for document in apart.documents}
        before = len(learn)
        learn, kept = [d for d in learn if d.digest not in known], list(apart.documents)
        notes += apart.notes
        if not learn:
            raise UsageError(
                "all documents of the data are held out too; give other data, or another --held-out"
            )
        if len(learn) < before:
            notes.append(f"Of the documents {before - len(learn)} are left out: they are held out.")
    else:
        learn, kept = held_out(learn, share)
    tokens = _tokens(learn, tokenizer, chat, end, notes)
    kept_tokens = _tokens(kept, tokenizer, chat, end, notes)
    if not kept and share > 0 and len(tokens) == 1:
        tokens, kept_tokens = _cut(tokens[0], share, length)
    train, rest = packed(tokens, length), packed(kept_tokens, length)
    count = sum(len(document.ids) for document in tokens)
    if not len(train):
        raise UsageError(
            f"the data makes {count} tokens to learn from, but one sequence has {length}; give more text, or "
            "a smaller --sequence"
        )
    have = sum(len(document.ids) for document in kept_tokens)
    if not len(rest) and not must_measure:
        notes.append(f"Nothing is measured: {have} tokens are held out, but one sequence has {length}.")
    elif not len(rest) and (held_out_file is not None or share > 0):
        raise UsageError(
            f"{have} tokens are held out, but one sequence has {length}; give more text, a smaller "
            "--sequence or a larger --held-out-share"
        )
    digest = hashlib.sha256()
    for part in (train, rest):
        for array in (part.ids, part.positions, part.labels):
            digest.update(repr(array.shape).encode() + array.tobytes())
    prompts = prompts_of(tokens, kept_tokens, length, answer) if answer else None
    if prompts is not None:
        digest.update(repr(prompts).encode())
        notes += prompts.notes
    return TrainingText(train, rest, digest.hexdigest(), tuple(notes), prompts)


def _tokens(
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    chat: ChatTemplate | None,
    end: int | None,
    notes: list[str],
) -> list[Tokens]:
    """Tokens of the documents that the model has a form for; `notes` gets how many are left out, and why."""
    found, refused = [], []
    for document in documents:
        if not document.messages:
            found.append(text_tokens(document.text, tokenizer, end))
        elif chat is None:
            refused.append(f"{document.place}: the model has no chat template")
        else:
            try:
                found.append(conversation_tokens(document, tokenizer, chat))
            except UsageError as error:
                refused.append(str(error))
    if refused and not found:
        raise UsageError(f"no document of the data can be used; the first: {refused[0]}")
    if refused:
        several = "s" * (len(refused) != 1)
        notes.append(f"{len(refused)} conversation{several} left out; the first: {refused[0]}.")
    return found


def _cut(document: Tokens, share: float, length: int) -> tuple[list[Tokens], list[Tokens]]:
    """One document's tokens to learn from, and its last ones, at least a sequence where there are two."""
    count = len(document.ids)
    kept = max(round(share * count), length if count >= 2 * length else 0)
    last = Tokens(document.ids[count - kept :], document.learnt[count - kept :].copy())
    last.learnt[:1] = False
    return [Tokens(document.ids[: count - kept], document.learnt[: count - kept])], [last]
