"""The whole way from a folder of documents to a directory of questions and answers, resumable at any moment.

The directory holds `train.jsonl` and `held-out.jsonl`, whose lines have `messages` as `--data` takes them,
and the `source`, `heading` and `passage` they come from; `report.json` says what was dropped, and why.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from rockledge.artifact.publish import publish_directory, write_file, writing
from rockledge.distillation.document_files import shown_name
from rockledge.distillation.model_directory import model_directory, small_files
from rockledge.distillation.question_answer.checks import refused
from rockledge.distillation.question_answer.journal import Journal, Output
from rockledge.distillation.question_answer.near_duplicates import AskedQuestions
from rockledge.distillation.question_answer.parsing import parsed
from rockledge.distillation.question_answer.passages import Passage
from rockledge.distillation.question_answer.plan import Plan, Side, plan
from rockledge.distillation.question_answer.prompts import KINDS, Prompts
from rockledge.distillation.resuming import files_stated
from rockledge.distillation.settings import Settings
from rockledge.errors import ArtifactError, RockledgeError, UsageError
from rockledge.model.source import source_hub_id

TRAIN, HELD_OUT, REPORT = "train.jsonl", "held-out.jsonl", "report.json"
_VERSION = 1

Write = Callable[[Sequence[Sequence[int]], str, int], list[Output]]
"""(prompts as token ids, a seed, most tokens of an output) -> outputs."""
Progress = Callable[[str, int, int], None]
"""Called with (stage, pairs so far, pairs in all)."""


@dataclass(frozen=True)
class Synthesized:
    """A finished directory. `held_out` is None where no pair is; `numbers` is what report.json holds."""

    train: Path
    held_out: Path | None
    numbers: Mapping[str, Any]

    @property
    def held_out_documents(self) -> frozenset[str]:
        """SHA-256 (`Document.digest`) of the documents that nothing may be learnt of."""
        return frozenset(self.numbers["held_out_sha256"])

    @property
    def sentence(self) -> str:
        """How many pairs there are, and if they are fewer than wanted, why."""
        train, apart, wanted = (self.numbers[key] for key in ("train", "held_out", "wanted"))
        text = f"The teacher wrote {train + apart} questions and answers from {self.numbers['documents']} "
        text += f"documents, {apart} of them held out."
        if train + apart < wanted:
            text += f" That is all that it could: {wanted} were asked for; more documents give more."
        return text


@dataclass
class _Taken:
    """The pairs that were taken, as lines, by side, and how many were dropped, by reason."""

    asked: AskedQuestions = field(default_factory=AskedQuestions)
    lines: dict[str, list[str]] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    outputs: int = 0

    def add(self, side: Side, passage: Passage, output: Output, source: str) -> None:
        """Takes what is good of an output, as long as the side wants more."""
        self.outputs += 1
        lines = self.lines.setdefault(side.name, [])
        pairs, reasons = parsed(*output)
        self.dropped.update(reasons)
        for pair in pairs:
            if len(lines) >= side.wanted:
                return
            reason = refused(pair, passage.heading, passage.text) or self.asked.refused(pair.question)
            if reason is not None:
                self.dropped[reason] += 1
                continue
            messages = [
                {"role": "user", "content": pair.question},
                {"role": "assistant", "content": pair.answer},
            ]
            entry = {"messages": messages, "source": source}
            entry |= {"heading": passage.heading, "passage": passage.text}
            lines.append(json.dumps(entry, ensure_ascii=False))


def synthesize(
    teacher: str | Path,
    out: str | Path,
    settings: Settings,
    *,
    overwrite: bool = False,
    progress: Progress = lambda stage, done, total: None,
    write: Write | None = None,
) -> Synthesized:
    """Lets the teacher write `settings.synthesize` pairs from `settings.documents` into the directory `out`.

    What a killed process wrote lies hidden beside `out`, and the same call goes on from there to the same
    pairs. A finished directory of the same call is taken as it is. `write` stands in for the model.

    Raises:
        UsageError: documents, teacher and settings do not go together, or no pair could be used.
        ArtifactError: `out` holds something else, or cannot be written.
        TrainingError: the device has no room, or the teacher's logits are not finite.
    """
    target = Path(os.path.realpath(out))
    _check_apart(target, settings)
    teaching = model_directory(teacher, "teacher")
    files = small_files(teaching)
    prompts = Prompts(files)
    planned = plan(settings, files, prompts)
    described = _described(planned, settings, teaching)
    if (finished := _finished(target, described)) is not None:
        return finished
    _check_place(target, overwrite)
    with Journal(target.parent / f".{target.name}.pairs.jsonl", described) as journal:
        writes = write or _model(teaching, files, prompts, settings)
        taken = _written(planned, journal, prompts, writes, settings, progress)
        if not taken.lines.get("train"):
            raise RockledgeError(
                f"none of the {taken.outputs} outputs of the teacher could be used ({_said(taken.dropped)}); "
                "take a teacher that was taught to follow instructions, or other documents"
            )
        numbers = _numbers(planned, taken, described, teaching)
        with (
            publish_directory(target, lambda there: _check_place(there, overwrite)) as partial,
            writing(target),
        ):
            for name, side in ((TRAIN, "train"), (HELD_OUT, "held out")):
                if lines := taken.lines.get(side):
                    write_file(partial / name, "".join(f"{line}\n" for line in lines).encode())
            write_file(partial / REPORT, (json.dumps(numbers, indent=2, ensure_ascii=False) + "\n").encode())
        journal.remove()
    return _of_directory(target, numbers)


def _model(teaching: Path, files: dict[str, bytes], prompts: Prompts, settings: Settings) -> Write:
    """The teacher, loaded when it is first asked: a journal may have all already."""
    loaded: list[Write] = []

    def write(batch: Sequence[Sequence[int]], seed: str, most: int) -> list[Output]:
        if not loaded:
            from rockledge.distillation.question_answer.teacher_writing import WritingTeacher
            from rockledge.distillation.quiet import quiet_libraries

            with quiet_libraries():
                loaded.append(WritingTeacher(teaching, files, prompts, settings.bf16).write)
        return loaded[0](batch, seed, most)

    return write


def _written(
    planned: Plan, journal: Journal, prompts: Prompts, write: Write, settings: Settings, progress: Progress
) -> _Taken:
    """Goes through the prompts of both sides until each has its pairs: first those of the journal, then new
    ones, which it keeps. What the held-out side lacks in the end, the other one makes up for; and a question
    that both could have stays with it."""
    taken, number = _Taken(), 0
    learnt, apart = planned.sides
    for side in (apart, learnt):
        if side is learnt:
            side = replace(side, wanted=settings.synthesize - len(taken.lines[apart.name]))
        asked = side.asked(settings.seed)
        while len(taken.lines.setdefault(side.name, [])) < side.wanted:
            batch = list(islice(asked, settings.synthesize_batch))
            if not batch:
                break
            if number == len(journal.batches):
                ids = [prompts.ids(passage, kind) for passage, kind in batch]
                journal.add(write(ids, f"{settings.seed} {number}", planned.output_tokens))
            for (passage, _), output in zip(batch, journal.batches[number], strict=True):
                taken.add(side, passage, output, planned.documents[passage.document].place)
            number += 1
            progress("pairs", sum(map(len, taken.lines.values())), settings.synthesize)
    return taken


def _described(planned: Plan, settings: Settings, teaching: Path) -> dict[str, Any]:
    """All that the pairs depend on."""
    return {
        "version": _VERSION,
        "teacher": files_stated(teaching),
        "documents": planned.sha256,
        "pairs": settings.synthesize,
        "batch": settings.synthesize_batch,
        "bf16": settings.bf16,
        "seed": settings.seed,
    }


def _numbers(planned: Plan, taken: _Taken, described: Mapping[str, Any], teaching: Path) -> dict[str, Any]:
    train, apart = (len(taken.lines.get(side.name, [])) for side in planned.sides)
    return {
        "teacher": source_hub_id(teaching) or shown_name(teaching.name),
        "wanted": sum(side.wanted for side in planned.sides),
        "train": train,
        "held_out": apart,
        "documents": len(planned.documents),
        "passages": sum(len(side.passages) for side in planned.sides),
        "outputs": taken.outputs,
        "most_outputs": planned.most_prompts,
        "kinds_of_questions": list(KINDS),
        "dropped": dict(taken.dropped.most_common()),
        "notes": list(planned.notes),
        "held_out_documents": [planned.documents[i].place for i in sorted(planned.held_out)],
        "held_out_sha256": [planned.documents[i].digest for i in sorted(planned.held_out)],
        "made_from": json.loads(json.dumps(described)),
    }


def _finished(target: Path, described: Mapping[str, Any]) -> Synthesized | None:
    """The directory, where the same call finished it."""
    try:
        numbers = json.loads((target / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    same = isinstance(numbers, dict) and numbers.get("made_from") == json.loads(json.dumps(described))
    return _of_directory(target, numbers) if same and (target / TRAIN).is_file() else None


def _of_directory(target: Path, numbers: Mapping[str, Any]) -> Synthesized:
    apart = target / HELD_OUT
    return Synthesized(target / TRAIN, apart if numbers["held_out"] else None, numbers)


def _check_place(target: Path, overwrite: bool) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir() or not (target / REPORT).is_file() or not (target / TRAIN).is_file():
        raise ArtifactError(f"{target} exists and does not hold questions and answers; choose another place")
    if not overwrite:
        raise ArtifactError(
            f"{target} holds questions and answers of another run; add --overwrite to replace them, or "
            "choose another place"
        )


def _check_apart(target: Path, settings: Settings) -> None:
    for name in settings.documents:
        given = Path(os.path.realpath(name))
        if target.is_relative_to(given) or given.is_relative_to(target):
            raise UsageError(
                f"the questions and answers {target} and --documents {name} lie in each other; name another "
                "place for one of them"
            )


def _said(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in dropped.items())


def dropped_lines(numbers: Mapping[str, Any]) -> Iterator[str]:
    """Why outputs were no pairs, for people."""
    for reason, count in numbers["dropped"].items():
        yield f"{count:,} dropped: {reason}"
