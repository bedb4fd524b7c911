"""What the server counts, as Prometheus reads it: the engine's numbers, and requests by route and status."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Receive, Scope, Send

from rockledge.runtime.governor_status import GovernorStatus
from rockledge.runtime.histogram import Histogram
from rockledge.runtime.offload.status import NpuStatus
from rockledge.runtime.streaming.status import StreamStats
from rockledge.serve.residency.models import Models
from rockledge.serve.residency.place import Place

OTHER: Final = "other"
"""The route of requests that no route takes: what clients make up must not make new series."""

METHODS: Final = frozenset({"GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"})

# Name after "rockledge_npu_", kind, field of NpuStatus, what it is.
_NPU: Final = (
    ("in_use", "gauge", "in_use", "1 while prefill runs on the NPU"),
    ("buffer_bytes", "gauge", "buffer_bytes", "memory of its buffers"),
    ("steps_total", "counter", "steps", "prefill steps that ran on the NPU"),
    ("tokens_total", "counter", "rows", "tokens of those steps"),
    ("blocks_total", "counter", "blocks", "blocks of columns that it has multiplied"),
    ("unpacked_bytes_total", "counter", "unpacked_bytes", "int8 weights written for it"),
    ("busy_seconds_total", "counter", "busy_seconds", "from the start of each block until its end was seen"),
    (
        "waited_seconds_total",
        "counter",
        "waited_seconds",
        "time a thread waited for it with nothing else to do",
    ),
    ("jobs_total", "counter", "jobs", "jobs submitted to the device, repeats included"),
    ("faults_total", "counter", "faults", "jobs that failed, were late or did nothing"),
    ("resets_total", "counter", "resets", "resets of the device"),
    ("fallbacks_total", "counter", "fallbacks", "steps that the CPU had to finish"),
    ("attention_tokens_total", "counter", "attention_rows", "tokens with attention there"),
    ("attention_jobs_total", "counter", "attention_jobs", "jobs of attention"),
)

# Name after "rockledge_governor_", what it is, and the number of a status; None where there is none.
_GOVERNOR: Final[tuple[tuple[str, str, Callable[[GovernorStatus], float | None]], ...]] = (
    ("temperature_celsius", "the warmest part of the chip", lambda s: s.celsius),
    ("target_celsius", "what the governor keeps", lambda s: s.target),
    ("holding_back", "1 while less is done than could be", lambda s: s.holding_back),
    ("safe", "1 while a safe setting holds because the temperature is not believed", lambda s: s.safe),
    ("throttled", "1 while the kernel holds clocks back", lambda s: s.throttled),
    ("speed_kept", "modelled share of the full speed", lambda s: s.kept),
    ("threads", "threads that work on a step", lambda s: s.setting.threads),
    ("prompt_share", "share of prompt rows beside answers", lambda s: s.setting.prompt_share),
    ("npu_hertz", "highest clock that the NPU may have", lambda s: s.setting.npu_hz or None),
    ("sequences", "sequences worked on at once", lambda s: s.setting.sequences),
    ("rest_share", "share of time between steps", lambda s: s.setting.rest),
)

# Name after "rockledge_streaming_", kind, field of StreamStats, what it is.
_STREAMING: Final = (
    ("kept_bytes", "gauge", "kept", "weights that stay in memory"),
    ("step_bytes", "gauge", "streamed", "weights that every step reads from the disk"),
    ("ring_bytes", "gauge", "ring", "memory that these pass through"),
    ("read_bytes_total", "counter", "bytes_read", "weights read from the disk for steps"),
    ("embedding_bytes_total", "counter", "embedding_read", "rows of the embedding read from the disk"),
    ("waited_seconds_total", "counter", "waited_seconds", "time that steps waited for the disk"),
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
    (
        "cached_tokens_total",
        "counter",
        "cached_tokens",
        "tokens of prompts that were found in the cache instead",
    ),
    ("prefix_hits_total", "counter", "prefix_hits", "sequences whose prompt began with one that was found"),
    ("answer_tokens_total", "counter", "answer_tokens", "tokens drawn"),
    (
        "time_to_first_token_seconds",
        "histogram",
        "first_token",
        "from arrival at the engine to the first token",
    ),
    ("inter_token_seconds", "histogram", "token", "from one token of an answer to the next"),
    ("step_seconds", "histogram", "step", "time of a step"),
    ("step_sequences", "histogram", "step_sequences", "sequences that a step worked on"),
)


class Metrics:
    """All metrics of a server."""

    def __init__(self, models: Models) -> None:
        self._registry = CollectorRegistry()
        self._models = models
        self._registry.register(_EngineCollector(models))
        self._answered = Counter(
            "rockledge_http_requests",
            "answers by route, method and status",
            ("route", "method", "status"),
            registry=self._registry,
        )

    def answered(self, route: str, method: str, status: int) -> None:
        """Counts an answer."""
        self._answered.labels(route, method if method in METHODS else OTHER, str(status)).inc()

    async def text(self, accept: str) -> tuple[bytes, str]:
        """All of them and their content type, in the format that a scraper's `Accept` header asks for."""
        await asyncio.gather(*(running.front.fresh_stats() for running in self._models.running))
        encoder, content_type = choose_encoder(accept)
        return encoder(self._registry), content_type


class _EngineCollector(Collector):
    def __init__(self, models: Models) -> None:
        self._models = models

    def describe(self) -> Iterator[Metric]:
        """Nothing yet: the registry would ask before any engine has said how it stands."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The numbers of the engines as families of samples; where there are several models, by model."""
        places = self._models.places
        several = len(places) > 1

        def family(
            name: str, kind: str, about: str, of: Callable[[Place], Any], *, labelled: bool = several
        ) -> Metric:
            made: Metric = _FAMILIES[kind](f"rockledge_{name}", about, labels=("model",) if labelled else ())
            for place in places:
                if (value := of(place)) is not None:
                    _add(made, (place.name,) if labelled else (), value)
            return made

        info = InfoMetricFamily("rockledge", "the models that are served", labels=("model",))
        for place in places:
            info.add_metric((place.name,), {})
        yield info
        yield family("model_loaded", "gauge", "1 while its engine is loaded", _loaded, labelled=True)
        yield family("model_bytes", "gauge", "memory that it takes", _bytes, labelled=True)
        yield family("model_loads_total", "counter", "how often it was loaded", _loads, labelled=True)
        yield family("requests", "gauge", "requests waiting or running", _requests)
        yield family("artifact_damaged", "gauge", "1 when a checksum of the artifact is wrong", _damaged)
        for name, kind, field, about in _ENGINE:
            yield family(name, kind, about, partial(_of_stats, field))
        if any(_governor(place) for place in places):
            for name, about, number in _GOVERNOR:
                yield family(f"governor_{name}", "gauge", about, partial(_of_governor, number))
        if any(_streaming(place) for place in places):
            for name, kind, field, about in _STREAMING:
                yield family(f"streaming_{name}", kind, about, partial(_of_streaming, field))
        if not any(_npu(place) for place in places):
            return
        npu = InfoMetricFamily(
            "rockledge_npu", "the NPU: what it is and its state", labels=("model",) if several else ()
        )
        for place in places:
            if (status := _npu(place)) is not None:
                told = {name: getattr(status, name) or "" for name in ("state", "driver", "version", "node")}
                npu.add_metric((place.name,) if several else (), told)
        yield npu
        for name, kind, field, about in _NPU:
            yield family(f"npu_{name}", kind, about, partial(_of_npu, field))


def _loaded(place: Place) -> bool:
    return place.loaded


def _bytes(place: Place) -> int:
    return place.bytes


def _loads(place: Place) -> int:
    return place.loads


def _requests(place: Place) -> int:
    return place.requests


def _damaged(place: Place) -> bool:
    return place.engine is not None and place.engine.integrity.failure is not None


def _npu(place: Place) -> NpuStatus | None:
    return None if place.engine is None else place.engine.front.stats.npu


def _governor(place: Place) -> GovernorStatus | None:
    return None if place.engine is None else place.engine.governor()


def _of_governor(number: Callable[[GovernorStatus], float | None], place: Place) -> float | None:
    status = _governor(place)
    return None if status is None else number(status)


def _streaming(place: Place) -> StreamStats | None:
    return None if place.engine is None else place.engine.front.stats.streaming


def _of_streaming(field: str, place: Place) -> Any:
    status = _streaming(place)
    return None if status is None else getattr(status, field)


def _of_stats(field: str, place: Place) -> Any:
    return None if place.engine is None else getattr(place.engine.front.stats, field)


def _of_npu(field: str, place: Place) -> Any:
    status = _npu(place)
    return None if status is None else getattr(status, field)


_FAMILIES: Final[dict[str, Any]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


def _add(family: Any, labels: tuple[str, ...], value: Any) -> None:
    if not isinstance(value, Histogram):
        family.add_metric(labels, value)
        return
    bounds = [*map(str, map(float, value.bounds)), "+Inf"]
    buckets = list(zip(bounds, accumulate(value.counts), strict=True))
    family.add_metric(labels, buckets=buckets, sum_value=value.total)


class Counted:
    """Counts every answer by its route, and by "other" what no route took."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", OTHER)
                self._metrics.answered(route, scope["method"], message["status"])
            await send(message)

        await self._app(scope, receive, sending)
