"""What a distillation is asked for, checked before any text is read: models, places and settings that go
together."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rockledge.artifact.writer import check_place
from rockledge.distillation.fitting import check_context
from rockledge.distillation.full_disk import check_output_room
from rockledge.distillation.in_grid import recipe_of
from rockledge.distillation.model_directory import model_directory, small_files
from rockledge.distillation.on_policy import check_on_policy, check_trl
from rockledge.distillation.same_tokenizer import check_same_tokenizer
from rockledge.distillation.settings import Settings
from rockledge.errors import ArtifactError, UsageError
from rockledge.model.chat import ChatTemplate
from rockledge.model.checkpoint import open_checkpoint

if TYPE_CHECKING:
    from rockledge.quantization.choosing.recipe import Recipe


@dataclass(frozen=True)
class Request:
    """Directories, small files and settings that go together. `place` is for work, `length` that of a
    sequence; `teacher` and `taught_by`, its small files, are None where none is learnt from."""

    student: Path
    teacher: Path | None
    recipe: "Recipe | None"
    place: Path
    files: dict[str, bytes]
    taught_by: dict[str, bytes] | None
    length: int


def checked_request(
    teacher: str | Path,
    student: str | Path,
    target: Path,
    settings: Settings,
    work: str | Path | None,
    overwrite: bool,
) -> Request:
    """The request, whose output goes to `target`.

    Raises:
        UsageError, ArtifactError, CheckpointError, RockledgeError: what is wrong with it.
    """
    if settings.on_policy:
        check_trl()
    learning = model_directory(student, "student")
    recipe = recipe_of(settings, learning)
    if recipe is None:
        check_student_place(target, overwrite)
    else:
        check_place(target, overwrite=overwrite)
    needed = settings.learns_from_teacher or settings.on_policy
    teaching = model_directory(teacher, "teacher") if needed else None
    place = Path(work) if work is not None else target.parent / f".{target.name}.distil"
    _check_apart(target, place, teaching, learning, settings)
    check_output_room(target, learning)
    files = small_files(learning)
    length = _checked_length(learning, settings)
    taught_by = None if teaching is None else small_files(teaching)
    if taught_by is not None:
        check_same_tokenizer(taught_by, files)
        check_context(taught_by, length)
        if settings.on_policy:
            check_on_policy(learning, files, taught_by)
    return Request(learning, teaching, recipe, place, files, taught_by, length)


def check_request(
    teacher: str | Path,
    student: str | Path,
    out: str | Path,
    settings: Settings,
    work: str | Path | None,
    overwrite: bool,
) -> None:
    """Raises, as `distil` does, what is wrong with models, places and settings before any text is read; with
    `settings.synthesize` also UsageError where the student has no form for questions and answers."""
    checked = checked_request(teacher, student, Path(os.path.realpath(out)), settings, work, overwrite)
    if settings.synthesize and ChatTemplate.from_files(checked.files) is None:
        raise UsageError(
            f"the student {student} has no chat template, so it cannot learn questions and answers; put a "
            "chat_template.jinja into its directory, such as the teacher's"
        )


def check_student_place(target: Path, overwrite: bool) -> None:
    """Raises ArtifactError where a student cannot be written to `target`."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if (
        not target.is_dir()
        or not (target / "report.json").is_file()
        or not (target / "config.json").is_file()
    ):
        raise ArtifactError(f"{target} exists and is not a distilled student; choose another place")
    if not overwrite:
        raise ArtifactError(
            f"{target} holds a model already; add --overwrite to replace it, or choose another place"
        )


def _checked_length(student: Path, settings: Settings) -> int:
    config = open_checkpoint(student).config
    if config.headless:
        raise UsageError(f"{student} makes embeddings and cannot generate; give a causal language model")
    if settings.sequence > config.context:
        raise UsageError(
            f"a sequence of {settings.sequence} tokens is longer than the student's context of "
            f"{config.context}; choose a smaller --sequence"
        )
    return settings.sequence


def _check_apart(target: Path, place: Path, teacher: Path | None, student: Path, settings: Settings) -> None:
    """Raises UsageError where something that is read or kept lies in the output, whose place it would take
    or be replaced in, or the cache in the work, which is removed."""
    read = [("the teacher", teacher), ("the student", student), ("--held-out", settings.held_out)]
    read += [("--data", file) for file in settings.data]
    cache = ("--cache-logits", settings.cache_logits)
    for outer, said, inner in (
        (target, "the output", [*read, ("--work", place), cache]),
        (place, "the work directory", [*read, cache]),
    ):
        for name, path in inner:
            if path is not None and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(outer)):
                raise UsageError(f"{name} {path} is in {said} {outer}; name another place for one of them")
    for folder in settings.data:
        for said, made in (("the output", target), ("--work", place)):
            if Path(os.path.realpath(made)).is_relative_to(os.path.realpath(folder)):
                raise UsageError(
                    f"{said} {made} is in --data {folder}, whose files are learnt; name another place for "
                    "one of them"
                )
