"""The table of checks that look at the whole case. A new one is a file here and a line in the table."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from rockledge.doctor.case import Case
from rockledge.doctor.checks import (
    activations,
    chat_template,
    described_turns,
    finite,
    npu,
    precision,
    repetition,
    runtime,
    scale_statistics,
    settings,
    stop_tokens,
    tokenizer,
)
from rockledge.doctor.finding import Finding

CaseCheck = Callable[[Case], Iterator[Finding]]

CASE_CHECKS: Mapping[str, CaseCheck] = MappingProxyType(
    {
        "finite": finite.check_finite,
        "settings": settings.check_settings,
        "stop_tokens": stop_tokens.check_stop_tokens,
        "tokenizer": tokenizer.check_tokenizer,
        "chat_template": chat_template.check_chat_template,
        "described_turns": described_turns.check_described_turns,
        "runtime": runtime.check_runtime,
        "npu": npu.check_npu,
        "repetition": repetition.check_repetition,
        "precision": precision.check_precision,
        "activations": activations.check_activations,
        "scale_statistics": scale_statistics.check_scale_statistics,
    }
)
"""Each gives findings where something is wrong, and none where it cannot say: without a reference, for
one."""
