"""The dashboard asks for metrics that the server has, with labels that they have."""

import asyncio
import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.serve.conftest import scripted_model

from rockledge.runtime.exchange import Stats
from rockledge.runtime.offload.status import NpuStatus
from rockledge.runtime.request import EngineStats
from rockledge.serve.front import Front
from rockledge.serve.integrity import Integrity
from rockledge.serve.metrics import Metrics
from rockledge.serve.residency.models import Models
from rockledge.serve.residency.room import Room
from rockledge.serve.residency.running import Offer, Running

BOARD = json.loads((Path(__file__).parents[2] / "deploy/grafana/rockledge.json").read_text())
EXPRESSIONS = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]


@cache
def samples(names: str = "ab") -> dict[str, set[str]]:
    """The labels of every metric of a server of models of these names, by the metric's name."""
    room = Room(10)

    def running(name: str) -> Running:
        front = Front(room)
        stats = EngineStats(npu=NpuStatus("ready", driver="rknpu"))
        front.connect(lambda asked: front.deliver(Stats(asked.tag, stats)))  # type: ignore[union-attr]
        return Running(replace(scripted_model(), name=name), front, Integrity())

    async def scrape() -> bytes:
        engines = list(map(running, names))
        models = Models([Offer(one.model, lambda _: engines[0]) for one in engines], engines, room=room)
        models.start()
        metrics = Metrics(models)
        metrics.answered("/v1/models", "GET", 200)
        text, _ = await metrics.text("")
        models.stop()
        return text

    families = text_string_to_metric_families(asyncio.run(scrape()).decode())
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


def test_a_single_model_has_no_label_where_it_would_say_nothing() -> None:
    one, several = samples("a"), samples("ab")
    assert one.keys() == several.keys()
    assert {name for name, labels in one.items() if "model" in labels} == {
        "rockledge_info",
        "rockledge_model_loaded",
        "rockledge_model_bytes",
        "rockledge_model_loads_total",
    }
    unlabelled = {name for name, labels in several.items() if "model" not in labels}
    assert {name for name in unlabelled if "http_requests" not in name} == set()


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_metric_of_the_dashboard_exists(expression: str) -> None:
    known = samples()
    named = re.findall(r"rockledge_\w+", expression)
    assert named
    assert set(named) <= known.keys()
    labels = known[named[0]]
    for grouped in re.findall(r"by \(([\w, ]+)\)", expression):
        assert set(grouped.split(", ")) <= labels


def test_panels_do_not_cover_each_other_and_legends_name_labels_that_are_there() -> None:
    known, taken = samples(), set[tuple[int, int]]()
    for panel in BOARD["panels"]:
        place: dict[str, Any] = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        taken |= cells
        for target in panel["targets"]:
            labels = set[str]().union(*(known[n] for n in re.findall(r"rockledge_\w+", target["expr"])))
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels
    assert "label_values(rockledge_info, instance)" in json.dumps(BOARD["templating"])


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_series_of_a_model_can_be_chosen_by_it_also_where_it_is_the_only_one(expression: str) -> None:
    known = samples()
    for name, selector in re.findall(r"(rockledge_\w+)({[^}]*})", expression):
        assert ('model=~"$model|"' in selector) == ("model" in known[name])
