"""`rockledge distill`: a student learns what a teacher knows of given text, or how much that would take."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from dataclasses import fields
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from rockledge.cli.command import Command
from rockledge.cli.distill_arguments import add_arguments
from rockledge.cli.pytorch_threads import let_threads_sleep
from rockledge.cli.sizes import counted
from rockledge.cli.terminal import Terminal, table
from rockledge.errors import RockledgeError, UsageError
from rockledge.pip_command import extra_requirements, pip_install

if TYPE_CHECKING:
    from rockledge.distillation.question_answer.synthesize import Synthesized
    from rockledge.distillation.settings import Settings
    from rockledge.recipe_file import RecipeFile

_NEEDED = ("torch", "transformers", "accelerate", "peft")


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Teaches, with progress; or prints what that would take."""
    from rockledge.recipe_file import read_recipe_file

    recipe = None if args.recipe is None else read_recipe_file(args.recipe)
    chosen = _settings(args, recipe)
    teacher, student = _models(args.models, recipe, chosen)
    if args.dry_run and len(args.models) == 1:
        return _planned(teacher, chosen, terminal)
    if args.dry_run:
        return _dry_run(teacher, student, chosen, recipe, terminal)
    if student is None and not chosen.synthesize:
        raise UsageError("the recipe names no student; prune one, and give TEACHER and STUDENT")
    if args.output is None:
        raise UsageError(
            f"-o says where the {'pairs go' if student is None else 'student goes'}; add it, or --dry-run"
        )
    if not chosen.data and not chosen.synthesize:
        raise UsageError(
            "there is nothing to learn from; add --data FILE, or --documents FOLDER --synthesize N"
        )
    _check_packages()
    let_threads_sleep()
    synthesized = None
    if chosen.synthesize:
        synthesized = _synthesized(teacher, student, chosen, args, terminal)
    if student is None:
        return {"output": args.output, **({} if synthesized is None else synthesized.numbers)}
    from rockledge.distillation.distil import distil
    from rockledge.distillation.report import held_out_lines

    others = int(os.environ.get("RANK", "0")) > 0  # of several processes one speaks
    terminal.quiet |= others
    with terminal.progress() as advance:
        report = distil(
            teacher,
            student,
            args.output,
            chosen,
            work=args.work,
            overwrite=args.overwrite,
            command=args.typed,
            progress=advance,
            synthesized=synthesized,
        )
    if others:
        terminal.as_json = False
        return {}
    for note in report.numbers["notes"]:
        terminal.note(f"Note: {note}")
    for line in held_out_lines(report.numbers):
        terminal.print(line)
    taker = "quantize" if chosen.quantization_aware is None else "run"
    terminal.print(f"\n{args.output} is complete; its report.md says more. rockledge {taker} takes it.")
    return {"output": args.output, **report.numbers}


def _synthesized(
    teacher: str, student: str | None, chosen: Settings, args: argparse.Namespace, terminal: Terminal
) -> Synthesized:
    """The pairs that the teacher wrote, with progress: in the output, or beside that of a student."""
    from rockledge.distillation.question_answer.synthesize import dropped_lines, synthesize
    from rockledge.distillation.request import check_request

    if student is not None:  # what is wrong with it is said before the teacher writes for hours
        check_request(teacher, student, args.output, chosen, args.work, args.overwrite)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            "--synthesize takes one process; let it write the pairs without STUDENT first, and learn them by "
            "--data DIR/train.jsonl --held-out DIR/held-out.jsonl"
        )
    place = args.output if student is None else f"{os.path.realpath(args.output)}-pairs"
    with terminal.progress() as advance:
        found = synthesize(teacher, place, chosen, overwrite=args.overwrite, progress=advance)
    for note in found.numbers["notes"] if student is None else ():
        terminal.note(f"Note: {note}")
    for line in dropped_lines(found.numbers):
        terminal.note(line)
    terminal.print(found.sentence)
    terminal.print(f"{place} holds them; rockledge distill ... --data {found.train} learns them again.")
    return found


def _settings(args: argparse.Namespace, recipe: RecipeFile | None) -> Settings:
    """What the recipe says, and over it what the flags say."""
    from rockledge.distillation.settings import Settings, kinds, settings

    values = {} if recipe is None else recipe.section("distill", kinds())
    for one in fields(Settings):
        given = getattr(args, one.name, None)
        if given is None:
            continue
        if one.name == "trainer":
            given = {**values.get("trainer", {}), **dict(map(_pair, given))}
        values[one.name] = given
    return settings(values)


def _pair(text: str) -> tuple[str, Any]:
    """A KEY=VALUE of --trainer; a value that is not JSON is text."""
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise UsageError(
            f"'{text[:60]}' is not an argument of the Trainer; write one such as weight_decay=0.1"
        )
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _models(models: list[str], recipe: RecipeFile | None, chosen: Settings) -> tuple[str, str | None]:
    if len(models) == 2:
        return models[0], models[1]
    if len(models) == 1 and chosen.synthesize:
        return models[0], None
    if models or recipe is None or recipe.teacher is None:
        raise UsageError(
            f"{counted(len(models), 'model')} given, expected TEACHER and STUDENT"
            + ("" if recipe is None else ", or none: those that the recipe names")
        )
    return recipe.teacher, recipe.student


def _check_packages() -> None:
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise RockledgeError(
            f"distill needs {' and '.join(missing)}, which is not installed; run: "
            f"{pip_install(*extra_requirements('distil'))}"
        )


def _dry_run(
    teacher: str, student: str | None, chosen: Settings, recipe: RecipeFile | None, terminal: Terminal
) -> dict[str, Any]:
    from rockledge.distillation.dry_run import dry_run

    if chosen.quantization_aware is not None:
        raise UsageError("--dry-run does not know what quantization-aware training takes; leave it out")
    body = dry_run(teacher, student, chosen, recipe).body()
    for line in _lines(body):
        terminal.print(line)
    return body


def _planned(teacher: str, chosen: Settings, terminal: Terminal) -> dict[str, Any]:
    """What the teacher would be asked, from the documents and its tokenizer alone."""
    from rockledge.distillation.model_directory import model_directory, small_files
    from rockledge.distillation.question_answer.plan import plan
    from rockledge.distillation.question_answer.prompts import Prompts

    files = small_files(model_directory(teacher, "teacher"))
    body = plan(chosen, files, Prompts(files)).body()
    for note in body["notes"]:
        terminal.note(f"Note: {note}")
    learnt, apart = body["passages"].values()
    names = ", ".join(body["held_out_documents"][:5]) or "none"
    terminal.print(
        f"{counted(body['documents'], 'document')}, {counted(learnt + apart, 'passage')}, of which"
    )
    terminal.print(f"{apart} are held out. Documents that are held out: {names}.")
    terminal.print(
        f"The teacher is asked at most {body['most_prompts']:,} times for {chosen.synthesize:,} pairs."
    )
    return body


def _lines(body: Mapping[str, Any]) -> list[str]:
    """The dry run for people. All modelled."""
    billions = [f"{body[role]['parameters'] / 1e9:.2f} billion" for role in ("teacher", "student")]
    training, memory, time = body["training"], body["memory_gb_per_gpu"], body["time"]
    hardware = body["hardware"]
    parts = [(name, f"{value:.2f}") for name, value in memory.items() if name not in ("peak", "fits")]
    fits = "fits" if memory["fits"] else "does not fit"
    steps = (
        f"{training['steps']} steps of {training['batch']} sequences of {training['sequence']} tokens: "
        f"{training['tokens']:,} tokens."
    )
    price = (
        f"Time: {time['gpu_hours']:,.2f} GPU hours, {time['hours']:,.2f} hours, {time['usd']:,.2f} USD at "
        f"{hardware['usd_per_gpu_hour']:g} USD an hour."
    )
    last = []
    if (own := training["on_policy"]) is not None:
        answers, most = f"{own['answers']:,} answers of its own", f"{own['longest_answer']:,} tokens"
        last = [f"Then {own['steps']} steps on {answers}, of at most {most} each."]
    written = body["synthesis"]
    lines = [
        f"Teacher: {billions[0]} parameters. Student: {billions[1]}.",
        steps,
        *last,
        "",
        table(("modelled, on each GPU", "GiB"), [*parts, ("peak", f"{memory['peak']:.2f}")]),
        "",
        f"It {fits} {hardware['memory_gb']:g} GiB ({hardware['gpus']} x {hardware['gpu']}).",
        price,
    ]
    if written["pairs"]:
        lines.append(
            f"In it the teacher first writes {written['pairs']:,} pairs, at least "
            f"{written['least_tokens']:,} tokens; counted are operations, and writing takes longer."
        )
    if body["sources"]:
        lines += ["", "Where the numbers are from:"]
        lines += [f"  {key}: {source}" for key, source in body["sources"].items()]
    return lines


COMMAND = Command("distill", "teach a small model what a large one knows of your text", add_arguments, run)
