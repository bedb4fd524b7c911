"""The accuracy table: our artifacts and llama.cpp's files of the same float weights, on the same tokens.

    python -m bench.accuracy [--model NAME ...] [--bits 4.25 ...] [--windows 118] [--quick]
                             [--engine rockledge|llama.cpp] [--artifact DIR ...]

Every divergence is to the float model: ours to the PyTorch reference, llama.cpp's to its own float32 run of
the same weights (`docs/measuring.md` shows how equal the two are). Engines run as they ship, with quantised
activations, and ours with its int8 cache. Sizes count all tensors. Finished rows are kept in the cache, so a
run that was ended goes on. Writes bench/results/accuracy.json and accuracy.png, and prints the goals.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import rockledge
from bench import llama_cpp
from bench.accuracy_models import MODELS, TableModel
from bench.accuracy_plot import plot
from bench.accuracy_rows import Measured, Row, code_digest, measured, remembered
from bench.accuracy_texts import WINDOW, calibration, evaluation, shared_span
from bench.goals import OURS, THEIRS, UNIFORM, Goal, goals
from bench.llama_files import STANDARD, VARIANTS, LlamaFile, content_digest, importance_matrix
from bench.llama_files import make as make_file
from bench.models import UnavailableError, cache
from bench.uniform import uniform
from rockledge.artifact import open_artifact
from rockledge.errors import RockledgeError
from rockledge.eval.divergence import divergence
from rockledge.model.checkpoint import Checkpoint, open_checkpoint
from rockledge.model.tokenizer import Tokenizer
from rockledge.quantize.budget import menu
from rockledge.quantize.candidates import WIDTHS
from rockledge.quantize.recipe import read_recipe
from rockledge.quantize.reference_logits import ReferenceLogits
from rockledge.quantize.rotate import rotated

RESULTS = Path(__file__).parent / "results"
WINDOWS = 118  # of 255 scored tokens each: 30,090
QUICK = 8
BUDGETS = (3.25, 3.5, 4.0, 4.25, 4.5, 5.0, 5.5, 8.0)
UNIFORM_BUDGETS = (3.5, 4.25)


@dataclass(frozen=True)
class Task:
    """What every row of one model is measured with."""

    model: TableModel
    directory: Path
    gguf: Path
    checkpoint: Checkpoint
    parameters: int
    text: Path
    windows: list[list[int]]
    bos: int | None
    calibration: Path
    threads: int

    @property
    def settings(self) -> dict[str, Any]:
        """What all rows depend on, whatever the engine; the texts' names hold their digests."""
        size = len(self.windows)
        return {"weights": self.gguf.name, "text": self.text.name, "windows": size, "window": WINDOW}

    def kept(self, suffix: str) -> Path:
        """A file in the cache that belongs to these weights and windows."""
        name = f"{self.gguf.stem}-{self.text.stem}-{len(self.windows)}{suffix}"
        (cache() / "accuracy").mkdir(exist_ok=True)
        return cache() / "accuracy" / name


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table and the goals, writes the results; 1 when something needed is missing."""
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description="accuracy side by side")
    parser.add_argument("--model", choices=sorted(MODELS), nargs="*", default=["smollm2-135m"])
    parser.add_argument("--bits", type=float, nargs="*", default=list(BUDGETS), help="our budgets")
    parser.add_argument("--engine", choices=(OURS, THEIRS), nargs="*", default=[THEIRS, OURS])
    parser.add_argument("--artifact", type=Path, action="append", default=[], help="ready artifacts to add")
    parser.add_argument("--windows", type=int, default=WINDOWS, help=f"windows of {WINDOW} tokens")
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK} windows, no variants, other results file"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args(arguments)
    if args.quick:
        args.windows = QUICK
    try:
        for name in args.model:
            run(args, MODELS[name])
    except (UnavailableError, RockledgeError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def run(args: argparse.Namespace, model: TableModel) -> None:
    """One model's part of the table; what other models have in the results file stays there."""
    task = prepare(model, args.windows, args.threads)
    target = RESULTS / ("accuracy-quick.json" if args.quick else "accuracy.json")
    measurements = {
        THEIRS: lambda: theirs(task, STANDARD + VARIANTS),
        OURS: lambda: ours(task, args.bits, UNIFORM_BUDGETS, args.artifact),
    }
    rows: list[Measured] = []
    judged: list[Goal] = []
    for engine in args.engine:
        for one in measurements[engine]():
            rows.append(one)
            judged = write(task, [done.row for done in rows], target)
    print(table(rows))
    print(goal_lines(judged))
    print(f"written to {target} and {target.with_suffix('.png').name}", file=sys.stderr)


def prepare(model: TableModel, windows: int, threads: int) -> Task:
    """Weights, tokens and texts; UnavailableError if calibration and evaluation share a span."""
    directory, gguf = model.files()
    checkpoint = open_checkpoint(directory)
    files = checkpoint.files()
    tokenizer = Tokenizer.from_files(files)
    text, pieces = evaluation(tokenizer, windows)
    calibration_text, calibration_tokens = calibration(files)
    shared = shared_span([token for piece in pieces for token in piece], calibration_tokens)
    if shared is not None:
        raise UnavailableError(f"calibration and evaluation share {tokenizer.decode(shared)!r}")
    parameters = sum(int(np.prod(checkpoint.shape(name))) for name in checkpoint.names())
    bos = tokenizer.bos
    return Task(model, directory, gguf, checkpoint, parameters, text, pieces, bos, calibration_text, threads)


def ours(
    task: Task, bits: Sequence[float], uniform_bits: Sequence[float], artifacts: Sequence[Path]
) -> Iterator[Measured]:
    """Our rows: every budget with the default recipe, uniform ones for comparison, then ready artifacts."""
    reference: list[ReferenceLogits] = []

    def score(path: Path, name: str) -> Measured:
        if not reference:
            note = _note("float reference, block")
            reference.append(
                ReferenceLogits(task.checkpoint, task.windows, progress=note, kept=task.kept("-hidden.npy"))
            )
        tokens = [token for window in task.windows for token in window]
        with rockledge.Engine.load(path, threads=task.threads, ctx=WINDOW) as engine:
            report = divergence(
                reference[0],
                engine.logits,
                tokens,
                window=WINDOW,
                bos=task.bos,
                progress=_note(f"{OURS} {name}, window"),
            )
        size = open_artifact(path).tensor_bytes
        return measured(task.model.name, OURS, name, size, task.parameters, report)

    code = code_digest()
    work = task.kept(f"-work-{code[:8]}")
    for budget in bits:
        for suffix in ("", UNIFORM) if budget in uniform_bits else ("",):
            name = f"{budget:g}{suffix}"
            settings = {**task.settings, "engine": OURS, "name": name, "code": code}
            yield remembered(settings, partial(_quantised, task, budget, name, work, score))
    shutil.rmtree(work, ignore_errors=True)
    for path in artifacts:
        yield score(path, path.name)


def _quantised(
    task: Task, bits: float, name: str, work: Path, score: Callable[[Path, str], Measured]
) -> Measured:
    with tempfile.TemporaryDirectory(dir=cache()) as folder:
        path = Path(folder) / "artifact"
        make = partial(rockledge.quantize, task.directory, path, progress=_stages(name))
        narrow = menu(rotated(task.checkpoint, 0), int(bits * task.parameters / 8)) != WIDTHS
        make(bits=bits, work=work / ("narrow" if narrow else "usual"))
        if name.endswith(UNIFORM):
            columns = {n: task.checkpoint.shape(n)[-1] for n in task.checkpoint.names()}
            recipe = Path(folder) / "uniform.yaml"
            recipe.write_text(uniform(read_recipe(path / "recipe.yaml"), columns).text())
            shutil.rmtree(path)
            make(recipe=recipe, work=work / "usual")
        return score(path, name)


def theirs(task: Task, files: Sequence[LlamaFile]) -> Iterator[Measured]:
    """llama.cpp's rows, by its own tools; files of equal content are measured once."""
    llama_cpp.tool("llama-perplexity")
    base = task.kept("-base.bin")
    with tempfile.TemporaryDirectory(dir=cache()) as folder:
        for file in files:
            settings = {
                **task.settings,
                "engine": THEIRS,
                "file": asdict(file),
                "imatrix": task.calibration.name,
            }
            yield remembered(settings, partial(_llama, task, file, Path(folder), base))
    base.unlink(missing_ok=True)


def _llama(task: Task, file: LlamaFile, folder: Path, base: Path) -> Measured:
    limits = {"window": WINDOW, "limit": len(task.windows), "threads": task.threads}
    matrix = importance_matrix(
        task.gguf,
        task.calibration,
        task.kept("-imatrix.gguf").with_name(f"{task.gguf.stem}-{task.calibration.stem}-imatrix.gguf"),
        task.threads,
    )
    target = folder / "model.gguf"
    print(f"{THEIRS} {file.name}", file=sys.stderr, flush=True)
    make_file(file, task.gguf, matrix, target, task.checkpoint.config.hidden, task.threads)

    def score() -> Measured:
        if not base.exists():
            print(f"{THEIRS} float reference run", file=sys.stderr, flush=True)
            fresh = base.with_suffix(".partial")
            llama_cpp.reference_run(task.gguf, task.text, fresh, **limits)
            if llama_cpp.reference_tokens(fresh).tolist() != task.windows:
                raise UnavailableError("llama.cpp cut the text into other tokens than we did: no comparison")
            fresh.replace(base)
        report = llama_cpp.divergence(target, task.text, base, **limits)
        size = llama_cpp.tensor_bytes(target)
        return measured(task.model.name, THEIRS, file.name, size, task.parameters, report)

    found = remembered({**task.settings, "engine": THEIRS, "content": content_digest(target)}, score)
    target.unlink()
    named = Row(**{**asdict(found.row), "name": file.name})
    return Measured(named, found.kl_mean_se_nats, found.reference_perplexity)


def write(task: Task, rows: Sequence[Row], target: Path) -> list[Goal]:
    """Merges the rows into the results, judges and plots everything that is there."""
    target.parent.mkdir(exist_ok=True)
    body: dict[str, Any] = json.loads(target.read_text()) if target.exists() else {"rows": [], "models": {}}
    new = {(row.model, row.engine, row.name) for row in rows}
    found = [Row(**row) for row in body["rows"]]
    found = [row for row in found if (row.model, row.engine, row.name) not in new] + list(rows)
    found.sort(
        key=lambda row: (list(MODELS).index(row.model), row.engine != OURS, row.bits_per_weight, row.name)
    )
    judged = goals(found)
    scored = len(task.windows) * (WINDOW - 1 - WINDOW // 2)
    about = {
        "about": task.model.about,
        "parameters": task.parameters,
        "windows": len(task.windows),
        "scored_tokens": scored,
        "texts": "Alice's Adventures in Wonderland, The Debian Administrator's Handbook "
        "(as many characters of each)",
        "calibration": "the built-in mix, for both engines",
    }
    models = {**body["models"], task.model.name: about}
    content = {
        "window_tokens": WINDOW,
        "models": models,
        "rows": [asdict(row) for row in found],
        "goals": [{**asdict(goal), "met": goal.met} for goal in judged],
    }
    target.write_text(json.dumps(content, indent=1) + "\n")
    plot(found, target.with_suffix(".png"))
    return judged


def table(rows: Sequence[Measured]) -> str:
    """The rows as aligned text."""
    lines = [f"{'':<38}{'MB':>9}{'bits':>7}{'KL mean':>19}{'KL 99 %':>9}{'top-1':>8}{'PPL':>8}{'float':>8}"]
    for one in rows:
        row = one.row
        kl = f"{row.kl_mean_nats:.5f} ± {one.kl_mean_se_nats:.5f}"
        lines.append(
            f"{row.engine + ' ' + row.name:<38}{row.bytes / 1e6:>9.1f}{row.bits_per_weight:>7.3f}{kl:>19}"
            f"{row.kl_p99_nats:>9.4f}{row.top1_agreement:>8.1%}{row.perplexity:>8.2f}"
            f"{one.reference_perplexity:>8.2f}"
        )
    return "\n".join(lines)


def goal_lines(judged: Sequence[Goal]) -> str:
    """The goals as aligned text."""
    words = {True: "met", False: "MISSED", None: "not judged"}
    lines = []
    for goal in judged:
        numbers = " ".join("-" if n is None else f"{n:.5f}" for n in (goal.value, goal.limit))
        lines.append(f"{words[goal.met]:<11}{goal.model:<22}{goal.goal:<62}{numbers}")
    return "\n".join(lines)


def _stages(name: str) -> Callable[[str, int, int], None]:
    return lambda stage, done, total: _note(f"{OURS} {name}: {stage}")(done, total)


def _note(what: str) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        end = "\n" if done == total else ""
        print(f"\r{what} {done} of {total}", end=end, file=sys.stderr, flush=True)

    return progress


if __name__ == "__main__":
    sys.exit(main())
