"""The diagnosis: all models on one text, all checks, and what each finding explains."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from rockledge.artifact import Artifact
from rockledge.doctor.basis import find_basis
from rockledge.doctor.case import Case, NpuRun, Runs
from rockledge.doctor.checks.case_table import CASE_CHECKS
from rockledge.doctor.divergence import Agreement, agreement, divergences
from rockledge.doctor.finding import Finding, NewSettings, NewTurns, by_weight
from rockledge.doctor.operation import Operation, end_operations, layer_operations
from rockledge.doctor.put_back import explained, part_of, share
from rockledge.doctor.reading import Reading
from rockledge.doctor.specification import Specification
from rockledge.doctor.text import Text
from rockledge.doctor.walk import Walked, walk
from rockledge.errors import UsageError
from rockledge.model.checkpoint import Checkpoint
from rockledge.model.config import ModelConfig
from rockledge.quantization.float_model.reference_logits import ReferenceLogits

Progress = Callable[[str, int, int], None]

PUT_BACK = 24
"""Operations that are put back to float, where a model has more than twice as many."""
_PUT_BACK_TOKENS = 128  # of the text, for them
_SAME_FUNCTION = 1e-2  # nats between the float model and its weights in the artifact's basis
_SHAPE = ("hidden", "layers", "heads", "kv_heads", "head_dim", "ffn", "vocab", "tied", "headless")
_NO_ARITHMETIC = ("bos", "eos", "context", "family")
_UNKNOWN_BASIS = (
    "the reference's weights, turned and balanced as the artifact's, do not compute what the reference does "
    "({:.2g} nats a token): matrices are not compared with it"
)


@dataclass(frozen=True)
class Diagnosis:
    """`findings`, the weightiest first; `agreements` by what is compared, such as "CPU and float model";
    `readings` of every operation and the share of the divergence that those explain which were put back."""

    findings: tuple[Finding, ...]
    agreements: Mapping[str, Agreement]
    readings: tuple[Reading, ...]
    explained: Mapping[str, float]
    notes: tuple[str, ...]

    @property
    def alarms(self) -> list[Finding]:
        """What is broken."""
        return [finding for finding in self.findings if finding.severity == "alarm"]

    def body(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "alarms": len(self.alarms),
            "findings": [finding.body() for finding in self.findings],
            "agreements": {
                name: {field.name: getattr(one, field.name) for field in fields(one)}
                for name, one in self.agreements.items()
            },
            "operations": [
                {**reading.body(), "explained": self.explained.get(reading.operation.name)}
                for reading in self.readings
            ],
            "notes": list(self.notes),
        }


def check_same_shape(artifact: Artifact, reference: Checkpoint) -> None:
    """Raises UsageError where the reference is a model of another shape or vocabulary."""
    ours, theirs = artifact.config, reference.config
    for name in _SHAPE:
        found, wanted = getattr(ours, name), getattr(theirs, name)
        if found != wanted:
            raise UsageError(
                f"{reference.path} is another model than {artifact.path}: its {name} is {wanted}, expected "
                f"{found}; give the checkpoint that the artifact was made from"
            )


def diagnose(
    artifact: Artifact,
    text: Text,
    cpu: Tensor,
    *,
    reference: Checkpoint | None = None,
    npu: NpuRun | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> Diagnosis:
    """What is wrong with `artifact`, of which a runtime made the logits `cpu` fp32 [tokens, vocab] of `text`.
    UsageError where it was not made from `reference`, or is a model without a language head."""
    if artifact.config.headless:
        raise UsageError(
            f"{artifact.path} has no language head; compare its embeddings with `rockledge eval`"
        )
    spec = Specification.of(artifact)
    if reference is None:
        case = Case(artifact, text, spec, Runs(spec.run(text), cpu, npu=npu))
        return _concluded(case, (), ())
    check_same_shape(artifact, reference)
    basis = find_basis(artifact, reference)
    expected = _reference_logits(reference, text, progress)
    walked = walk(spec, basis, text, progress)
    runs = Runs(spec.run(text), cpu, expected, npu)
    case = Case(artifact, text, spec, runs, reference, basis, walked.readings)
    apart = float(divergences(expected, walked.twin).mean())
    if not apart <= _SAME_FUNCTION:
        return _concluded(replace(case, readings=()), (), (_UNKNOWN_BASIS.format(apart),))
    part, rows = part_of(text, _PUT_BACK_TOKENS)
    chosen = _chosen(case, walked)
    shares = explained(spec, basis, part, expected[rows], chosen, progress)
    case = replace(case, explained={one.name: value for one, value in shares.items()})
    return _concluded(case, walked.findings, ())


def _reference_logits(reference: Checkpoint, text: Text, progress: Progress) -> Tensor:
    """The float model's, fp32 [tokens, vocab]."""
    model = ReferenceLogits(
        reference, text.padded, progress=lambda done, total: progress("float model, blocks", done, total)
    )
    found = zip(text.padded, text.sequences, strict=True)
    return torch.cat([torch.from_numpy(model(padded)[: len(one)]) for padded, one in found])


def _chosen(case: Case, walked: Walked) -> list[Operation]:
    """The operations that are put back: all of a small model; else those which a check named, and those
    that put most noise into the stream."""
    tree = case.spec.tree
    every = [
        *end_operations(tree),
        *(one for number in range(len(tree.layers)) for one in layer_operations(tree, number)),
    ]
    if len(every) <= 2 * PUT_BACK:
        return every
    named = {finding.place for finding in walked.findings}
    weight = {reading.operation: reading.weight for reading in walked.readings}
    ranked = sorted(every, key=lambda one: (one.name not in named, -weight.get(one, 0.0)))
    return ranked[: max(PUT_BACK, min(len(named), 2 * PUT_BACK))]


def _concluded(case: Case, found: Sequence[Finding], notes: tuple[str, ...]) -> Diagnosis:
    findings = [*found, *(one for check in CASE_CHECKS.values() for one in check(case))]
    findings = list(_unique(_weighed(case, findings)))
    return Diagnosis(
        findings=tuple(sorted(findings, key=by_weight)),
        agreements=dict(_agreements(case)),
        readings=case.readings,
        explained=case.explained,
        notes=notes,
    )


def _unique(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Without advice about what an alarm is about."""
    alarming = {finding.place for finding in findings if finding.severity == "alarm"}
    return (one for one in findings if one.severity == "alarm" or one.place not in alarming)


def _weighed(case: Case, findings: Sequence[Finding]) -> list[Finding]:
    """With the share of the divergence that each explains, where that can be measured."""
    measured = []
    for finding in findings:
        if finding.explained is None and finding.place in case.explained:
            finding = replace(finding, explained=case.explained[finding.place])
        elif finding.explained is None and (mended := _mended(case, finding)) is not None:
            finding = replace(finding, explained=_gain(case, mended))
        measured.append(finding)
    return measured


def _mended(case: Case, finding: Finding) -> Specification | None:
    """The specification of the artifact with other settings or turns, where they change logits."""
    change = finding.change
    if case.runs.reference is None:
        return None
    if isinstance(change, NewTurns):
        return replace(case.spec, rotation=change.rotation, online=change.online)
    if isinstance(change, NewSettings) and not set(change.fields) & set(_NO_ARITHMETIC):
        config: ModelConfig = replace(case.spec.config, **change.fields)
        return replace(case.spec, config=config)
    return None


def _gain(case: Case, mended: Specification) -> float:
    assert case.runs.reference is not None
    part, rows = part_of(case.text, _PUT_BACK_TOKENS)
    expected = case.runs.reference[rows]
    before = float(divergences(expected, case.runs.specification[rows]).mean())
    return share(before, float(divergences(expected, mended.run(part)).mean()))


def _agreements(case: Case) -> Iterator[tuple[str, Agreement]]:
    runs, text = case.runs, case.text
    if runs.reference is not None:
        yield "specification and float model", agreement(runs.reference, runs.specification, text)
        yield "CPU and float model", agreement(runs.reference, runs.cpu, text)
    yield "CPU and specification", agreement(runs.specification, runs.cpu, text)
    if runs.npu is not None:
        first = Text((text.sequences[0][: runs.npu.tokens],), (min(text.prompts[0], runs.npu.tokens),))
        yield "NPU and CPU", agreement(runs.npu.alone, runs.npu.found, first)
