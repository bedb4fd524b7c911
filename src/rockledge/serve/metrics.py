"""What the server counts, as Prometheus reads it (text format 0.0.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rockledge.runtime.offload.status import NpuStatus
from rockledge.runtime.request import EngineStats

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
# Name after "rockledge_npu_", kind, field of NpuStatus, what it is.
_NPU: Final = (
    ("in_use", "gauge", "in_use", "1 while prefill runs on the NPU"),
    ("buffer_bytes", "gauge", "buffer_bytes", "memory of its buffers"),
    ("steps_total", "counter", "steps", "prefill steps that ran on the NPU"),
    ("tokens_total", "counter", "rows", "tokens of those steps"),
    ("blocks_total", "counter", "blocks", "blocks of columns that it has multiplied"),
    ("unpacked_bytes_total", "counter", "unpacked_bytes", "int8 weights written for it"),
    ("jobs_total", "counter", "jobs", "jobs submitted to the device, repeats included"),
    ("faults_total", "counter", "faults", "jobs that failed, were late or did nothing"),
    ("resets_total", "counter", "resets", "resets of the device"),
    ("fallbacks_total", "counter", "fallbacks", "steps that the CPU had to finish"),
)


# Name after "rockledge_", kind, field of EngineStats, what it is.
_ENGINE: Final = (
    ("sequences_running", "gauge", "running", "sequences that steps work on"),
    ("sequences_waiting", "gauge", "waiting", "sequences that wait for their first step or for memory"),
    ("cache_pages", "gauge", "pages", "pages of the key/value cache"),
    ("cache_pages_free", "gauge", "free_pages", "pages that no sequence holds, those with prefixes included"),
    ("cache_pages_cold", "gauge", "cold_pages", "pages that no sequence holds and that keep a prefix"),
    ("sequences_total", "counter", "requests", "sequences since the start"),
    ("steps_total", "counter", "steps", "steps of the engine"),
    ("preemptions_total", "counter", "preemptions", "sequences that had to give up their memory for a while"),
    ("prompt_tokens_total", "counter", "prompt_tokens", "tokens of prompts that were read"),
    ("cached_tokens_total", "counter", "cached_tokens", "tokens of prompts that were found in the cache instead"),
    ("answer_tokens_total", "counter", "answer_tokens", "tokens drawn"),
)


def metrics_text(model: str, stats: EngineStats, *, requests: int, damaged: bool) -> str:
    """All metrics. `requests` are in the server now; `damaged`: a checksum of the artifact is wrong."""
    samples = [
        _sample("info", "gauge", "the model that answers", 1, {"model": model}),
        _sample("requests", "gauge", "requests waiting or running", requests),
        _sample("artifact_damaged", "gauge", "1 when a checksum of the artifact is wrong", int(damaged)),
        *(_sample(name, kind, about, int(getattr(stats, field))) for name, kind, field, about in _ENGINE),
    ]
    if stats.npu is not None:
        npu = stats.npu
        samples.append(_sample("npu_info", "gauge", "the NPU: what it is and its state", 1, _labels(npu)))
        samples += [
            _sample(f"npu_{name}", kind, about, int(getattr(npu, field))) for name, kind, field, about in _NPU
        ]
    return "".join(samples)


def _labels(npu: NpuStatus) -> dict[str, str]:
    return {
        "state": npu.state,
        "driver": npu.driver or "",
        "version": npu.version or "",
        "node": npu.node or "",
    }


def _sample(name: str, kind: str, about: str, value: int, labels: Mapping[str, str] | None = None) -> str:
    full = f"rockledge_{name}"
    listed = ",".join(f'{key}="{_escaped(text)}"' for key, text in (labels or {}).items())
    series = f"{full}{{{listed}}}" if labels else full
    return f"# HELP {full} {about}\n# TYPE {full} {kind}\n{series} {value}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
