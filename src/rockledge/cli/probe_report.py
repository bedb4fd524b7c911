"""The probes of `rockledge eval`: runs them through engine and float model, shows accuracy and flips."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rockledge.cli.terminal import Terminal, table

if TYPE_CHECKING:
    from rockledge.eval.probes.score import FamilyReport
    from rockledge.model.checkpoint import Checkpoint
    from rockledge.runtime.engine import Engine


def probe(
    engine: Engine, checkpoint: Checkpoint, terminal: Terminal, *, each: int, seed: int
) -> list[FamilyReport]:
    """The reports of every family and of all, with `each` probes a family."""
    from rockledge.eval.probes.families import all_probes
    from rockledge.eval.probes.score import answer_probes, report_probes, tokenize_probes
    from rockledge.quantization.float_model.reference_logits import ReferenceLogits

    probes = all_probes(each, seed)
    tokens = tokenize_probes(probes, lambda text: engine.tokenizer.encode(text, bos=True))
    with terminal.progress() as advance:
        reference = ReferenceLogits(
            checkpoint,
            tokens.sequences,
            progress=lambda done, total: advance("float model on probes, blocks", done, total),
        )
        expected = answer_probes(reference, tokens)
        answers = answer_probes(
            engine.logits, tokens, lambda done, total: advance("compressed model, probes", done, total)
        )
    return report_probes(probes, answers, expected)


def probe_lines(reports: list[FamilyReport]) -> list[str]:
    """The table for people; the brackets are the intervals of 95 %."""
    head = ("probes", "right (95 %)", "float (95 %)", "chance", "flips", "lost", "won", "of")
    rows = [
        (
            one.family,
            _share(one.accuracy, one.accuracy_ci95),
            _share(one.reference_accuracy, one.reference_accuracy_ci95),
            f"{one.chance:.0%}",
            *map(str, (one.flips, one.flips_lost, one.flips_won, one.probes)),
        )
        for one in reports
    ]
    return table(head, rows).splitlines()


def _share(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.0%} ({100 * interval[0]:.0f}-{100 * interval[1]:.0f})"


def probe_body(reports: list[FamilyReport], seed: int) -> dict[str, Any]:
    """The value of `probes` in the JSON object."""
    return {"seed": seed, "families": [asdict(one) for one in reports]}
