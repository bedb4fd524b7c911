"""`rockledge quantize BASE --adapter DIR` makes the artifact of the merged model."""

import json
from pathlib import Path

import numpy as np
import pytest

from rockledge.cli.main import main
from rockledge.synth import synth_checkpoint

peft = pytest.importorskip("peft")


def test_an_adapter_is_in_the_artifact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    base = synth_checkpoint("toy", tmp_path / "base")
    # Merged by peft in the type of its weights, which here would be bfloat16.
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).save_pretrained(base)
    torch.manual_seed(1)
    config = peft.LoraConfig(r=4, target_modules="all-linear", use_rslora=True)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.02)
    model.save_pretrained(tmp_path / "adapter")
    merged = synth_checkpoint("toy", tmp_path / "merged")
    model.merge_and_unload().save_pretrained(merged)

    def quantized(name: str, *words: str) -> bytes:
        assert main(["quantize", *words, "-o", str(tmp_path / name), "--instant", "--json"]) == 0
        return (tmp_path / name / "model.safetensors").read_bytes()

    mine = quantized("a", str(base), "--adapter", str(tmp_path / "adapter"))
    assert "adapter changes 14 tensors" in capsys.readouterr().err
    theirs, plain = quantized("b", str(merged)), quantized("c", str(base))
    same, other = (
        np.mean(np.frombuffer(mine, np.uint8) == np.frombuffer(file, np.uint8)) for file in (theirs, plain)
    )
    # The sums are rounded in another order, so a code at the middle of two may go either way.
    assert same > 0.999
    assert other < 0.9
    capsys.readouterr()

    dora = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({**dora, "use_dora": True}))
    words = ["quantize", str(base), "--adapter", str(tmp_path / "adapter"), "-o", str(tmp_path / "d")]
    assert main(words) == 2
    assert "DoRA" in capsys.readouterr().err
