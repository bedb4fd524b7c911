"""lm-eval, unchanged, against a real server: the log-likelihoods it reports are the engine's own."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rockledge.runtime.engine import Engine
from rockledge.synth import synth_artifact

ROOT = Path(__file__).parents[3]
TASK = "rockledge_opposites"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="needs the extra lm-eval")
@pytest.mark.parametrize("by_ids", [True, False], ids=["ids", "text"])
def test_a_local_task(start_server: Callable[..., str], tmp_path: Path, by_ids: bool) -> None:
    path = synth_artifact("toy", tmp_path / "toy", seed=11)
    with Engine.load(path, threads=1) as engine:
        url = start_server(engine)
        settings = {
            "model": engine.name,
            "base_url": f"{url}/v1/completions",
            "tokenizer": path,
            "tokenizer_backend": "huggingface",
            "tokenized_requests": by_ids,
        }
        options = {
            "model": "local-completions",
            "model_args": ",".join(f"{key}={value}" for key, value in settings.items()),
            "include_path": "examples/lm_eval",
            "tasks": TASK,
            "output_path": tmp_path / "results",
        }
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        environment = {**os.environ, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "lm_eval", "run", *words, "--log_samples"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        (found,) = (tmp_path / "results").rglob("samples_*.jsonl")
        samples = [json.loads(line) for line in found.read_text().splitlines()]
        right = 0
        for sample in samples:
            document = sample["doc"]
            expected = [
                likelihood(engine, f"The opposite of {document['word']} is", f" {choice}")
                for choice in document["choices"]
            ]
            reported = [float(response[0][0]) for response in sample["resps"]]
            assert reported == pytest.approx(expected, abs=1e-4)
            right += expected.index(max(expected)) == document["answer"]
    questions = (ROOT / "examples/lm_eval/opposites.jsonl").read_text().splitlines()
    assert len(samples) == len(questions)
    (results,) = (tmp_path / "results").rglob("results_*.json")
    assert json.loads(results.read_text())["results"][TASK]["acc,none"] == pytest.approx(
        right / len(questions)
    )


def likelihood(engine: Engine, context: str, continuation: str) -> float:
    """Sum of the log-probabilities of the continuation's tokens."""
    whole = engine.tokenizer.encode(context + continuation, bos=False)
    known = len(engine.tokenizer.encode(context, bos=False))
    return sum(score.logprob for score in engine.score(whole)[known - 1 :])
