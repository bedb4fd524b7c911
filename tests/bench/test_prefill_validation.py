"""The validation of prompts: what it predicts it did not see, and the page says what was written."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.bench.error_table import assert_table_says

from bench.board_validation import RESULTS
from bench.left_out import GOALS, MANY, left_out, source
from bench.prefill_validation import configuration, shape, validate_prefill
from bench.published_prefill import Prompt, by_backend, prompts

PAGE = Path(__file__).parents[2] / "docs" / "measuring.md"
HEADING = "### Prompts"


@pytest.mark.parametrize("key", [shape, source])
def test_what_is_predicted_was_not_seen(key: Callable[[Prompt], str]) -> None:
    runs, _ = prompts()

    def spy(known: list[Prompt]):
        seen = {key(one) for one in known}

        def predict(one: Prompt) -> float:
            assert key(one) not in seen
            return one.tok_s

        return predict

    assert len(left_out(runs, spy, key)) == len(runs)


def test_one_configuration() -> None:
    """What RKLLM's vendor and ork-driver have of Qwen3-1.7B and 64 tokens is one; groups are another."""
    runs, _ = prompts()
    of = [p for p in runs if p.backend == "RKLLM" and p.tokens == 64 and p.model == "Qwen3-1.7B"]
    assert len({configuration(p) for p in of}) == 1
    assert {p.source for p in of} == {"airockchip/rknn-llm", "oRKLLM/ork-driver"}
    llama = [p for p in runs if p.backend == "RKLLM" and p.model == "llama3-8B"]
    assert len({configuration(p) for p in llama}) == len(llama) == 2


def test_the_written_results_are_those_of_the_table() -> None:
    written = {one["backend"]: one for one in json.loads(RESULTS.read_text())["prefill"]}
    runs, _ = prompts()
    backends = dict(by_backend(runs))
    assert set(written) == set(backends)
    for backend, some in backends.items():
        one, found = written[backend], validate_prefill(backend, some)
        for name in ("model_out", "source_out"):
            out = getattr(found, name)
            assert (one[name] is None) is (out is None) is (name == "source_out" and found.sources == 1)
            if out is not None:
                assert one[name]["formula"]["p90"] == pytest.approx(out.formula.p90, rel=0.02)
                assert one[name]["baseline"]["p90"] == pytest.approx(out.baseline.p90, rel=1e-6)
        assert one["goals"] == found.goals
        assert (found.goals is None) is (len(some) < MANY)
        assert found.model_out.formula.rows == len(some)


def test_goals_are_met() -> None:
    """Those of the issue: median, 90th percentile, and its share of the baseline's."""
    judged = [one for one in json.loads(RESULTS.read_text())["prefill"] if one["goals"]]
    assert len(judged) == 4
    for one in judged:
        for name, met in one["goals"].items():
            formula, baseline = one[f"{name}_out"]["formula"], one[f"{name}_out"]["baseline"]
            assert met
            assert formula["median"] < GOALS[0]
            assert formula["p90"] < min(GOALS[1], GOALS[2] * baseline["p90"])


def test_the_page_says_what_was_written() -> None:
    lines = PAGE.read_text(encoding="utf-8").partition(HEADING)[2].splitlines()
    assert_table_says(lines, json.loads(RESULTS.read_text())["prefill"], "repeated")
