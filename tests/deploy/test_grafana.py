"""The dashboard asks for metrics that the server has, with labels that they have."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rockledge.runtime.offload.status import NpuStatus
from rockledge.runtime.request import EngineStats
from rockledge.serve.metrics import Metrics

BOARD = json.loads((Path(__file__).parents[2] / "deploy/grafana/rockledge.json").read_text())
EXPRESSIONS = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]


def samples() -> dict[str, set[str]]:
    """The labels of every metric of a server by its name."""
    metrics = Metrics("model")
    metrics.answered("/v1/models", "GET", 200)
    stats = EngineStats(npu=NpuStatus("ready", driver="rknpu"))
    text, _ = metrics.text(stats, requests=0, damaged=False, accept="")
    families = text_string_to_metric_families(text.decode())
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


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
