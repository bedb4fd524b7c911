"""A diagnosis for people."""

from collections.abc import Iterator

from rockledge.doctor.diagnose import Diagnosis
from rockledge.doctor.divergence import Agreement
from rockledge.doctor.finding import Finding

_TITLES = {"alarm": "ALARM", "advice": "advice", "remark": "remark"}
SHOWN = 12
"""Operations in the table: those that explain most, else those with most noise."""


def agreement_lines(diagnosis: Diagnosis) -> Iterator[str]:
    """How far the models are apart, one line a pair."""
    for name, one in diagnosis.agreements.items():
        yield f"{name:32}{_apart(one)}"


def _apart(one: Agreement) -> str:
    if one.identical:
        return "the same bits"
    first = [place for place in one.first_divergence if place is not None]
    parted = (
        f"{len(first)} of {len(one.first_divergence)} answers part, the first at token {min(first) + 1}"
        if first
        else "no answer parts"
    )
    return (
        f"{one.kl_mean_nats:.2g} nats a token (worst {one.kl_max_nats:.2g}), "
        f"same top token {one.top1_agreement:.1%}, {parted}"
    )


def finding_lines(diagnosis: Diagnosis) -> Iterator[str]:
    """The findings, the weightiest first."""
    if not diagnosis.findings:
        yield "Nothing is wrong with what was checked."
    for number, finding in enumerate(diagnosis.findings, 1):
        yield f"{number}. {_TITLES[finding.severity]}: {finding.place}{_share(finding)}"
        yield f"   {_sentence(finding.cause)}"
        yield f"   {_sentence(finding.mend)}"


def _share(finding: Finding) -> str:
    if finding.explained is None:
        return ""
    return f" explains {finding.explained:.0%} of the divergence"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith("`") else ".")


def operation_rows(diagnosis: Diagnosis) -> list[tuple[str, ...]]:
    """Cells of the table of operations: name, explained share, dB, headroom, first token, loudest channel."""
    readings = sorted(
        diagnosis.readings,
        key=lambda one: (-diagnosis.explained.get(one.operation.name, -1.0), one.snr_db),
    )
    return [
        (
            one.operation.name,
            _percent(diagnosis.explained.get(one.operation.name)),
            f"{one.snr_db:.1f}",
            "" if one.headroom_bits is None else f"{one.headroom_bits:.1f}",
            "" if one.first_token is None else f"{one.first_token:.1f}",
            "" if one.outlier_ratio is None else f"{one.outlier_channel} ({one.outlier_ratio:.0f}x)",
        )
        for one in readings[:SHOWN]
    ]


OPERATION_HEAD = ("operation", "explains", "SNR dB", "peak bits", "first token", "loudest channel")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"
