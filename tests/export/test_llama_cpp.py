"""llama.cpp itself loads what `--to gguf` writes, of every architecture, and computes the same perplexity."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tests.export.artifacts import converted, held
from tests.export.test_gguf_target import FITTING

from bench.llama_cpp import tool
from bench.models import UnavailableError
from rockledge.artifact import open_artifact
from rockledge.eval.divergence import divergence
from rockledge.eval.windows import cut_windows
from rockledge.export.plain import PlainModel
from rockledge.export.request import ExportRequest
from rockledge.export.targets import export
from rockledge.model.tokenizer import Tokenizer
from rockledge.quantization.float_model.reference_logits import ReferenceLogits

WINDOW = 64


@pytest.mark.slow
@pytest.mark.parametrize("name", FITTING)
def test_llama_cpp_computes_the_same_perplexity(name: str, tmp_path: Path) -> None:
    try:
        program = tool("llama-perplexity")
    except UnavailableError as error:
        pytest.skip(str(error))
    path = converted(held(name, **FITTING[name]), tmp_path / "artifact")
    export(path, tmp_path / "gguf", "gguf", ExportRequest("f32"))
    text = bytes(np.random.default_rng(3).integers(ord("A"), ord("Z") + 1, 4 * WINDOW, np.uint8)).decode()
    (tmp_path / "text").write_text(text)
    run = subprocess.run(
        [str(program), "-m", str(tmp_path / "gguf" / "model.gguf"), "-f", str(tmp_path / "text"),
         "-c", str(WINDOW), "-b", str(WINDOW), "-t", "1", "-ctk", "f32", "-ctv", "f32", "-fa", "off"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    running = re.findall(r"\[(\d+)\]([\d.]+),", run.stdout)  # the estimate after each window
    plain = PlainModel(open_artifact(path))
    tokens = Tokenizer.from_files(plain.files(), plain.config.vocab).encode(text, bos=True)
    windows = cut_windows(tokens, WINDOW)
    logits = ReferenceLogits(plain, windows)
    expected = divergence(logits, logits, tokens, window=WINDOW).perplexity
    assert [int(number) for number, _ in running] == list(range(1, len(windows) + 1)), run.stderr[-2000:]
    assert float(running[-1][1]) == pytest.approx(expected, rel=1e-3)
