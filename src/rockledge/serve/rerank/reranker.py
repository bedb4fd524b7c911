"""Language models that were trained to say whether a document fits a query: the score is the probability of
"yes" against that of "no", after a prompt of the model's own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from rockledge.model.tokenizer import Tokenizer


@dataclass(frozen=True)
class RerankerForm:
    """`name` is part of the model's. A prompt is `before`, in which control tokens count, then `text`, in
    which they do not, then `after`."""

    name: str
    before: str
    text: str
    after: str
    yes: str
    no: str


# README of https://huggingface.co/Qwen/Qwen3-Reranker-0.6B, "Transformers Usage".
FORMS = (
    RerankerForm(
        name="qwen3-reranker",
        before=(
            "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
            'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>'
        ),
        text=(
            "user\n<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
            "<Query>: {query}\n<Document>: "
        ),
        after="<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        yes="yes",
        no="no",
    ),
)


@dataclass(frozen=True)
class Reranker:
    """A form by token ids: `yes` and `no` are the answers."""

    form: RerankerForm
    tokenizer: Tokenizer
    yes: int
    no: int

    @classmethod
    def of(cls, tokenizer: Tokenizer, names: Iterable[str]) -> Reranker | None:
        """That of a model by one of its names; None where none of them is a reranker's."""
        plain = [re.sub(r"[\s_]+", "-", name.lower()) for name in names]
        for form in FORMS:
            yes, no = tokenizer.id(form.yes), tokenizer.id(form.no)
            if yes is not None and no is not None and any(form.name in name for name in plain):
                return cls(form, tokenizer, yes, no)
        return None

    def prompt(
        self, query: str, document: str, *, document_tokens: int | None = None, room: int | None = None
    ) -> tuple[int, ...]:
        """The token ids that ask whether the document fits. It is cut at its end to so many tokens
        (`document_tokens`), and so that the whole has no more than `room`."""
        encode = self.tokenizer.encode_plain
        before = self.tokenizer.encode(self.form.before, bos=True)
        after = self.tokenizer.encode(self.form.after, bos=False)
        asked = self.form.text.replace("{query}", query)
        middle = encode(asked + document)
        if document_tokens is not None:
            middle = middle[: len(encode(asked)) + document_tokens]
        if room is not None:
            middle = middle[: max(room - len(before) - len(after), 0)]
        return (*before, *middle, *after)
