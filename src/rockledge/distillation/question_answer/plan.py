"""What is to be asked, before any weights are loaded: documents, their passages, and which are held out."""

import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rockledge.distillation.document_files import listed
from rockledge.distillation.documents import Document, read_documents
from rockledge.distillation.question_answer.apart import belonging_together, held_out_groups
from rockledge.distillation.question_answer.passages import HEADING_TOKENS, Passage, passages
from rockledge.distillation.question_answer.prompts import KINDS, Prompts
from rockledge.distillation.settings import Settings
from rockledge.errors import UsageError
from rockledge.model.special_tokens import json_object

PASSAGE_TOKENS = 400  # most of a passage: one or two subjects
OUTPUT_TOKENS = 256  # most of an output
_LEAST_PASSAGE_TOKENS = 48
_SPARE_TOKENS = 32  # a text has a few more where tokens would have joined its parts
_SIDES = ("train", "held out")


@dataclass(frozen=True)
class Side:
    """Passages of one side of the split, and how many pairs it is to give."""

    name: str
    passages: tuple[Passage, ...]
    wanted: int

    def asked(self, seed: int) -> Iterator[tuple[Passage, int]]:
        """(passage, number of the kind of question): all passages once in another order for each kind."""
        for turn in range(len(KINDS)):
            order = list(range(len(self.passages)))
            random.Random(f"{seed} {self.name} {turn}").shuffle(order)
            for number in order:
                yield self.passages[number], (number + turn) % len(KINDS)


@dataclass(frozen=True)
class Plan:
    """The documents, the two sides, and sentences about what was left out. `output_tokens`: the most of an
    output."""

    documents: tuple[Document, ...]
    sides: tuple[Side, ...]
    held_out: frozenset[int]
    output_tokens: int
    notes: tuple[str, ...]

    @property
    def most_prompts(self) -> int:
        """How many prompts there are at all."""
        return sum(len(side.passages) for side in self.sides) * len(KINDS)

    def body(self) -> dict[str, Any]:
        """What a dry run says, as JSON can hold it."""
        return {
            "documents": len(self.documents),
            "passages": {side.name: len(side.passages) for side in self.sides},
            "wanted": {side.name: side.wanted for side in self.sides},
            "held_out_documents": [self.documents[number].place for number in sorted(self.held_out)],
            "most_prompts": self.most_prompts,
            "notes": list(self.notes),
        }

    @property
    def sha256(self) -> str:
        """Of all that is asked, in order."""
        asked = [
            [side.name, side.wanted, [[p.heading, p.text, p.document] for p in side.passages]]
            for side in self.sides
        ]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def plan(settings: Settings, files: Mapping[str, bytes], prompts: Prompts) -> Plan:
    """The plan for a teacher with these small files.

    Raises:
        UsageError: there is no document, none says enough, or the teacher's context is too short.
    """
    read = read_documents(settings.documents)
    notes = list(read.notes)
    documents = [document for document in read.documents if document.text]
    if talks := len(read.documents) - len(documents):
        notes.append(f"Conversations are no documents: {talks} left out.")
    most, output = _room(files, prompts)
    cut = [passages(number, one, prompts.tokens, most) for number, one in enumerate(documents)]
    if short := [one.place for one, own in zip(documents, cut, strict=True) if not own]:
        notes.append(f"{listed(short)} left out: too short to ask about.")
    if not any(cut):
        raise UsageError(
            f"{', '.join(settings.documents)} holds no document with enough text to ask about; give longer "
            "ones"
        )
    groups = belonging_together(documents)
    for group in groups:
        if len(group) > 1:
            names = [documents[i].place for i in group]
            notes.append(f"{listed(names)} share most of their text: they stay on one side of the split.")
    sizes = [len(own) for own in cut]
    held = frozenset(held_out_groups(groups, documents, sizes, settings.held_out_share))
    every = [passage for own in cut for passage in own]
    apart = [passage for passage in every if passage.document in held]
    learnt = [passage for passage in every if passage.document not in held]
    if not apart and settings.held_out_share > 0 and len(learnt) > 1:
        kept = max(1, round(settings.held_out_share * len(learnt)))
        learnt, apart = learnt[:-kept], learnt[-kept:]
        notes.append(
            "The documents belong together, so their last passages are held out instead of a document."
        )
    wanted = max(1, round(settings.held_out_share * settings.synthesize)) if apart else 0
    wanted = min(wanted, settings.synthesize - 1)
    sides = (
        Side(_SIDES[0], tuple(learnt), settings.synthesize - wanted),
        Side(_SIDES[1], tuple(apart), wanted),
    )
    return Plan(tuple(documents), sides, held, output, tuple(notes))


def _room(files: Mapping[str, bytes], prompts: Prompts) -> tuple[int, int]:
    """(tokens of a passage, tokens of an output) that fit the teacher's context together with the task."""
    described: dict[str, Any] = json_object(files, "config.json")
    inner = described.get("text_config")
    stated = described.get(
        "max_position_embeddings", inner.get("max_position_embeddings") if isinstance(inner, dict) else None
    )
    context = stated if type(stated) is int else 2048
    output = min(OUTPUT_TOKENS, context // 4)
    room = context - output - prompts.around() - HEADING_TOKENS - _SPARE_TOKENS
    passage = min(PASSAGE_TOKENS, room)
    if passage < _LEAST_PASSAGE_TOKENS:
        raise UsageError(
            f"the teacher's context of {context} tokens has no room for a passage, the task and an answer; "
            "take a teacher that reads more"
        )
    return passage, output
