"""Our side of the accuracy table: artifacts made with a recipe and scored as the engine runs them."""

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path

import rockledge
from bench.accuracy_rows import Measured, code_digest, measured, remembered
from bench.accuracy_task import Task
from bench.accuracy_texts import WINDOW
from bench.goals import OURS, UNIFORM
from bench.models import cache
from bench.uniform import uniform
from rockledge.artifact import open_artifact
from rockledge.board.time import DEFAULT_BOARD
from rockledge.eval.divergence import divergence
from rockledge.quantization.choosing.budget import Limits, menu
from rockledge.quantization.choosing.recipe import Recipe, read_recipe
from rockledge.quantization.float_model.reference_logits import ReferenceLogits
from rockledge.quantization.rounding.candidates import WIDTHS
from rockledge.quantization.transforming.rotate import rotated


class Workshop:
    """Makes artifacts of one model and scores them. Intermediate files of runs that differ in the budget only
    are shared, and removed by `close`; `apart` names a place of its own for them."""

    def __init__(self, task: Task, apart: str = "") -> None:
        self._task = task
        self.code = code_digest()
        self._work = task.kept(f"-work-{self.code[:8]}{apart.replace(' ', '-')}")

    def close(self) -> None:
        """Removes the intermediate files."""
        shutil.rmtree(self._work, ignore_errors=True)

    def row(self, name: str, bits: float, lines: str = "", *, even: bool = False) -> Measured:
        """The row `name`: an artifact of at most `bits` with a recipe's `lines`, scored; measured once.

        With `even` every matrix has the same widths, in the same bytes.
        """
        settings = {**self._task.settings, "engine": OURS, "name": name, "code": self.code}
        if lines:
            settings["lines"] = lines
        return remembered(settings, lambda: self._made(name, bits, lines, even))

    def score(self, path: Path, name: str) -> Measured:
        """The row of a ready artifact."""
        task = self._task
        tokens = [token for window in task.windows for token in window]
        with rockledge.Engine.load(path, threads=task.threads, ctx=WINDOW) as engine:
            report = divergence(
                self._reference,
                engine.logits,
                tokens,
                window=WINDOW,
                bos=task.bos,
                progress=note(f"{OURS} {name}, window"),
            )
        size = open_artifact(path).tensor_bytes
        return measured(task.model.name, OURS, name, size, task.parameters, report)

    @cached_property
    def _reference(self) -> ReferenceLogits:
        task = self._task
        progress = note("float reference, block")
        return ReferenceLogits(
            task.checkpoint, task.windows, progress=progress, kept=task.kept("-hidden.npy")
        )

    def _made(self, name: str, bits: float, lines: str, even: bool) -> Measured:
        task = self._task
        with tempfile.TemporaryDirectory(dir=cache()) as folder:
            path, recipe = Path(folder) / "artifact", Path(folder) / "recipe.yaml"
            recipe.write_text(f"version: 1\n{lines}")
            make = partial(rockledge.quantize, task.directory, path, recipe=recipe, progress=_stages(name))
            choices = read_recipe(recipe)
            limits = Limits(DEFAULT_BOARD, int(bits * task.parameters / 8))
            narrow = menu(rotated(task.checkpoint, 0), limits) != WIDTHS
            make(bits=bits, work=self._folder(choices, "narrow" if narrow else "usual"))
            if even:
                columns = {n: task.checkpoint.shape(n)[-1] for n in task.checkpoint.names()}
                recipe.write_text(uniform(read_recipe(path / "recipe.yaml"), columns).text())
                shutil.rmtree(path)
                make(work=self._folder(choices, "usual"))
            return self.score(path, name)

    def _folder(self, choices: Recipe, widths: str) -> Path:
        lines = json.dumps([choices.seed, choices.tokens, choices.steps.before_prices()], sort_keys=True)
        return self._work / f"{widths}-{hashlib.sha256(lines.encode()).hexdigest()[:8]}"


def ours(
    task: Task,
    bits: Sequence[float],
    uniform_bits: Sequence[float],
    artifacts: Sequence[Path],
    tokens: int | None = None,
) -> Iterator[Measured]:
    """Our rows: every budget with the default recipe, uniform ones for comparison, then ready artifacts.
    `tokens` limits the calibration."""
    workshop = Workshop(task)
    lines = "" if tokens is None else f"calibration: {{tokens: {tokens}}}\n"
    for budget in bits:
        yield workshop.row(f"{budget:g}", budget, lines)
        if budget in uniform_bits:
            yield workshop.row(f"{budget:g}{UNIFORM}", budget, lines, even=True)
    workshop.close()
    for path in artifacts:
        yield workshop.score(path, path.name)


def _stages(name: str) -> Callable[[str, int, int], None]:
    return lambda stage, done, total: note(f"{OURS} {name}: {stage}")(done, total)


def note(what: str) -> Callable[[int, int], None]:
    """A progress line on stderr."""

    def progress(done: int, total: int) -> None:
        end = "\n" if done == total else ""
        print(f"\r{what} {done} of {total}", end=end, file=sys.stderr, flush=True)

    return progress
