"""Reading what llama.cpp's tools leave behind, and saying when they are missing."""

from pathlib import Path

import numpy as np
import pytest

from bench import llama_cpp
from bench.models import UnavailableError

REPORT = """
====== Perplexity statistics ======
Mean PPL(Q)                   :  22.350000 ±   1.811000
Mean PPL(base)                :  18.190000 ±   1.470000
Cor(ln(PPL(Q)), ln(PPL(base))):  95.12%
Mean ln(PPL(Q)/PPL(base))     :  -0.020610 ±   0.025100
Mean PPL(Q)/PPL(base)         :   1.228800 ±   0.030800

====== KL divergence statistics ======
Mean    KLD:   0.288900 ±   0.008000
Maximum KLD:   2.040000
99.9%   KLD:   1.900000
99.0%   KLD:   1.306000
Median  KLD:   0.230000

====== Token probability statistics ======
Same top p: 67.353 ± 1.469 %
"""


def test_every_figure_is_found() -> None:
    report = llama_cpp.read_report("noise\n" + REPORT)
    assert report.kl_mean_nats == 0.2889
    assert report.kl_mean_se_nats == 0.008
    assert report.kl_p99_nats == 1.306
    assert report.top1_agreement == pytest.approx(0.67353)
    assert report.perplexity == 22.35
    assert report.reference_perplexity == 18.19
    assert report.ln_perplexity_ratio == -0.02061
    assert report.ln_perplexity_ratio_se == 0.0251


def test_a_missing_figure_is_named() -> None:
    with pytest.raises(UnavailableError, match="Same top p"):
        llama_cpp.read_report(REPORT.replace("Same top p", "Same bottom"))


def test_tokens_of_a_base_file(tmp_path: Path) -> None:
    tokens = np.arange(12, dtype=np.int32).reshape(3, 4)
    path = tmp_path / "base.bin"
    path.write_bytes(b"_logits_" + np.array([4, 100, 3], np.int32).tobytes() + tokens.tobytes() + b"\1\2\3")
    assert (llama_cpp.reference_tokens(path) == tokens).all()
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(UnavailableError, match="base file"):
        llama_cpp.reference_tokens(path)


def test_a_missing_tool_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCKLEDGE_LLAMA_CPP", str(tmp_path))
    with pytest.raises(UnavailableError, match="make llama-cpp"):
        llama_cpp.tool("llama-perplexity")
    (tmp_path / "llama-perplexity").write_text("#!/bin/sh\n")
    (tmp_path / "llama-perplexity").chmod(0o755)
    assert llama_cpp.tool("llama-perplexity") == tmp_path / "llama-perplexity"
