"""`rockledge doctor`: what is wrong with an artifact, why, and what mends it."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rockledge.cli.command import Command
from rockledge.cli.doctor_npu import npu_run
from rockledge.cli.engine_options import whole
from rockledge.cli.evaluate import check_source
from rockledge.cli.made_artifacts import remember
from rockledge.cli.probe_report import probe, probe_body, probe_lines
from rockledge.cli.pytorch_threads import let_threads_sleep
from rockledge.cli.terminal import Terminal, table
from rockledge.errors import RockledgeError
from rockledge.runtime.choices import KERNELS, NPU_MODES
from rockledge.units import show_size

if TYPE_CHECKING:
    from torch import Tensor

    from rockledge.artifact import Artifact
    from rockledge.doctor.diagnose import Diagnosis
    from rockledge.doctor.text import Text
    from rockledge.model.checkpoint import Checkpoint
    from rockledge.runtime.engine import Engine

ANSWER = 16  # tokens
PROBES = 2  # a family
_PROBE_TOKENS = 512  # room for a probe with its examples
_SEED = 0
_FIXED = "-mended"  # what is put after the name of the artifact


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `doctor`."""
    parser.add_argument("artifact", metavar="DIR", help="artifact made by rockledge quantize")
    parser.add_argument(
        "--reference",
        metavar="MODEL",
        help="checkpoint it was made from; without it only what the artifact says of itself is checked",
    )
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        help="a prompt a line, or JSON objects with `prompt` or `messages` (default: built-in ones)",
    )
    parser.add_argument(
        "--probes",
        type=whole(0),
        default=PROBES,
        metavar="N",
        help=f"logic probes of each family, with a reference; 0 for none (default: {PROBES})",
    )
    parser.add_argument(
        "--fix",
        nargs="?",
        const="",
        metavar="OUT",
        help=f"write the mended artifact to OUT (default: DIR{_FIXED}) and measure what that gained",
    )
    parser.add_argument(
        "--force", action="store_true", help="compare with a model that the artifact was not made from"
    )
    parser.add_argument("--threads", type=whole(1), metavar="N", help="CPU threads (default: the fast cores)")
    parser.add_argument("--kernel", choices=tuple(KERNELS), default="auto", help="kernels to use")
    parser.add_argument(
        "--npu",
        choices=NPU_MODES,
        default="auto",
        help="the NPU beside the CPU: one that is here, else an emulated one (auto, default), never, or fail "
        "without",
    )


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Runs all models on the same prompts and says what differs. The exit code is 1 where something is
    broken and was not mended."""
    let_threads_sleep()
    from rockledge.artifact import open_artifact
    from rockledge.artifact.writer import check_place
    from rockledge.doctor.diagnose import check_same_shape
    from rockledge.model.checkpoint import open_checkpoint

    path = Path(args.artifact)
    prompts = _prompts(args.prompts)
    artifact = open_artifact(path)
    artifact.verify()
    reference = open_checkpoint(args.reference) if args.reference else None
    if reference is not None:
        check_same_shape(artifact, reference)
        check_source(artifact, reference, args.force, terminal)
    out = None if args.fix is None else Path(args.fix or f"{path}{_FIXED}")
    if out is not None:
        check_place(out)
    with _seen(args, path, prompts, terminal) as seen:
        found = _diagnosis(args, seen, reference, terminal)
        probes = _probes(args, seen.engine, reference, terminal)
    body = {"artifact": args.artifact, "reference": args.reference, **found.body(), **probes}
    body["notes"] = [*seen.notes, *body["notes"]]
    _print(found, body["notes"], terminal)
    mended = None if out is None else _mend(args, out, seen, found, reference, terminal)
    broken = bool(found.alarms) and not (mended is not None and mended["alarms"] == 0)
    return {**body, "fixed": mended, "exit_code": int(broken)}


@dataclass
class _Seen:
    """An engine, the text that it answered, and its logits fp32 [tokens, vocab] of that."""

    engine: Engine
    artifact: Artifact
    text: Text
    cpu: Tensor
    notes: list[str]


def _prompts(file: str | None) -> list[Any] | None:
    from rockledge.doctor.prompts import read_prompts

    return None if file is None else read_prompts(Path(file))


@contextmanager
def _seen(
    args: argparse.Namespace, path: Path, prompts: list[Any] | None, terminal: Terminal
) -> Iterator[_Seen]:
    """The artifact's answers to the prompts, on the CPU."""
    from rockledge.doctor.prompts import LONGEST, built_in, prompt_tokens
    from rockledge.doctor.text import Text
    from rockledge.model.block import decoder

    with _engine(args, path, max(LONGEST + ANSWER, _PROBE_TOKENS if args.probes else 0)) as engine:
        engine.require_head()
        asked = built_in(engine.chat) if prompts is None else prompts
        ids, notes = prompt_tokens(asked, engine.tokenizer, engine.chat, engine.context, engine.config.vocab)
        answers = []
        with terminal.progress() as advance:
            for done, prompt in enumerate(ids, 1):
                most = min(ANSWER, engine.context - len(prompt))
                answers.append([i for piece in engine.generate(prompt, max_tokens=most) for i in piece.ids])
                advance("answers on the CPU", done, len(ids))
        ropes = [layer.attends.rope for layer in decoder(engine.config).layers]
        stretched = any(rope is not None and rope.stretched(engine.context) for rope in ropes)
        text = Text.of(ids, answers, engine.context if stretched else 0)
        yield _Seen(engine, engine.artifact, text, _logits(engine, text), notes)


@contextmanager
def _engine(args: argparse.Namespace, path: Path, context: int) -> Iterator[Engine]:
    from rockledge.artifact import open_artifact
    from rockledge.runtime.engine import Engine

    context = min(context, open_artifact(path).config.context)
    with Engine.load(path, ctx=context, threads=args.threads, kernel=args.kernel, npu="off") as engine:
        yield engine


def _logits(engine: Engine, text: Text) -> Tensor:
    import torch

    return torch.cat([torch.from_numpy(engine.logits(one)) for one in text.sequences])


def _diagnosis(
    args: argparse.Namespace, seen: _Seen, reference: Checkpoint | None, terminal: Terminal
) -> Diagnosis:
    from rockledge.doctor.diagnose import diagnose

    npu, why = npu_run(
        Path(args.artifact), seen.text.sequences[0], seen.cpu, args.npu, seen.artifact.parameters
    )
    if why is not None:
        seen.notes.append(why)
    with terminal.progress() as advance:
        return diagnose(seen.artifact, seen.text, seen.cpu, reference=reference, npu=npu, progress=advance)


def _probes(
    args: argparse.Namespace, engine: Engine, reference: Checkpoint | None, terminal: Terminal
) -> dict[str, Any]:
    """What of the result is about probes; they are shown at once."""
    if reference is None or not args.probes:
        return {}
    reports = probe(engine, reference, terminal, each=args.probes, seed=_SEED)
    for line in probe_lines(reports):
        terminal.print(line)
    terminal.print()
    return {"probes": probe_body(reports, _SEED)}


def _print(found: Diagnosis, notes: list[str], terminal: Terminal) -> None:
    from rockledge.doctor.lines import OPERATION_HEAD, agreement_lines, finding_lines, operation_rows

    for line in agreement_lines(found):
        terminal.print(line)
    if found.readings:
        terminal.print()
        terminal.print(table(OPERATION_HEAD, operation_rows(found)))
    terminal.print()
    for line in [*finding_lines(found), *notes]:
        terminal.print(line)


def _mend(
    args: argparse.Namespace,
    out: Path,
    seen: _Seen,
    found: Diagnosis,
    reference: Checkpoint | None,
    terminal: Terminal,
) -> dict[str, Any] | None:
    """Writes the mended artifact and examines it in the same way; None where nothing can be mended. It takes
    its place only if it is better, by the divergence or by the number of alarms. RockledgeError where
    not."""
    from rockledge.doctor.basis import find_basis
    from rockledge.doctor.diagnose import diagnose
    from rockledge.doctor.mend import can_mend, write_mended

    wanted = can_mend(found.findings)
    if not wanted:
        terminal.print("There is nothing that a change of the artifact mends.")
        return None
    basis = None if reference is None else find_basis(seen.artifact, reference)
    parent = out.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=parent) as folder,
        terminal.progress() as advance,
    ):
        trial = Path(folder) / out.name
        write_mended(seen.artifact, basis, wanted, trial, advance)
        with _engine(args, trial, seen.engine.context) as engine:
            cpu = _logits(engine, seen.text)
            again = diagnose(engine.artifact, seen.text, cpu, reference=reference, progress=advance)
            size = engine.artifact.tensor_bytes
        before, after = (_divergence(one) for one in (found, again))
        fewer = len(again.alarms) < len(found.alarms)
        if not fewer and not (before is not None and after is not None and after < before):
            raise RockledgeError(
                "what was changed gained nothing, so nothing is written; quantise the checkpoint again"
            )
        trial.rename(out)
        remember(out)
    gained = "" if before is None else f"{before:.3g} -> {after:.3g} nats a token to the float model, "
    terminal.print()
    terminal.print(
        f"{out}: {gained}{len(found.alarms)} -> {len(again.alarms)} alarms, "
        f"{show_size(seen.artifact.tensor_bytes)} -> {show_size(size)}."
    )
    return {
        "artifact": str(out),
        "mended": [finding.place for finding in wanted],
        "kl_mean_nats_before": before,
        "kl_mean_nats_after": after,
        "alarms": len(again.alarms),
        "tensor_bytes_before": seen.artifact.tensor_bytes,
        "tensor_bytes": size,
    }


def _divergence(found: Diagnosis) -> float | None:
    one = found.agreements.get("CPU and float model")
    return None if one is None else one.kl_mean_nats


COMMAND = Command("doctor", "find what is wrong with an artifact, and mend it", add_arguments, run)
