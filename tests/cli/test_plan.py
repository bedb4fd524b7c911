"""`rockledge plan`: every kind of model, the object of `--json`, tables, and what is wrong with a request."""

import cProfile
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.model.checkpoints import random_model, write_gguf
from tests.model.hub_fixtures import hub
from tests.model.hub_stand_in import Hub

from rockledge.board.boards import BOARDS
from rockledge.cli.main import COMMANDS
from rockledge.cli.parser import build_parser
from rockledge.cli.plan import quantize_command
from rockledge.model.hub import hub_name
from rockledge.model.known_shapes import KNOWN_SHAPES
from rockledge.planning.plan import Plan

Run = Callable[..., Any]
__all__ = ["hub"]  # a fixture

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
    "vocab_size": 128256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
    "tie_word_embeddings": True,
}  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Path:
    folder = tmp_path / "My 1B"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder / "config.json"


def test_a_known_name(rockledge: Run) -> None:
    found = rockledge("plan", "llama-3-8b", "--board", "rk3588-8gb", "--context", "8192", "--json")
    assert found.code == 0, found.err
    plan = found.json
    assert plan["basis"] == "modelled"
    assert plan["fits"] is True
    assert plan["would_fit"] is None
    assert set(plan["decode_tok_s"]) == set(plan["prefill_tok_s"]) == {"3", "4", "8"}
    assert plan["decode_tok_s"]["8"] is None  # does not fit
    # docs/precision.md, which is computed from facts alone: 5.3 tok/s after 8,192 tokens.
    assert plan["decode_tok_s"]["4"]["likely"] == pytest.approx(5.3, abs=0.05)
    memory = plan["memory_mb"]
    used = sum(memory[part] for part in ("weights", "kv_cache", "arena", "npu_buffers", "free"))
    assert used == pytest.approx(memory["available"], abs=0.01)
    assert memory["available"] + memory["system"] + memory["process"] == pytest.approx(
        memory["ram"], abs=0.01
    )
    assert plan["ttft_ms"]["cached_prefix"]["likely"] < plan["ttft_ms"]["cold"]["likely"]
    assert 0 < plan["npu_utilisation"]["512"] < 1
    assert plan["energy_j_per_token"]["decode"]["low"] > 0
    command = "rockledge quantize meta-llama/Meta-Llama-3-8B -o llama-3-8b-rk3588-8gb --bits 4.25"
    assert plan["command"] == command


@pytest.mark.parametrize("model", sorted(KNOWN_SHAPES))
def test_the_command_that_makes_it_is_one(model: str) -> None:
    """Of every known shape, on the smallest board where anything of it fits."""
    shape = KNOWN_SHAPES[model]
    context = min(4096, shape.config.context)
    plans = (Plan(model, shape.config, BOARDS[f"rk3588-{gib}gb"], context, 1) for gib in (4, 8, 16, 32))
    command = next(one for plan in plans if (one := quantize_command(plan, shape.source)))
    words = shlex.split(command)
    assert words[0] == "rockledge"
    parsed = build_parser(COMMANDS).parse_args(words[1:])
    assert parsed.command == "quantize"
    assert 2 <= parsed.bits <= 4.26
    assert hub_name(shape.source) is not None


def test_a_path_in_the_command_is_no_flag(
    rockledge: Run, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(config.parent.parent)
    config.parent.rename("-m")
    command = rockledge("plan", "--json", "--", "-m").json["command"]
    parsed = build_parser(COMMANDS).parse_args(shlex.split(command)[1:])
    assert (parsed.model, parsed.output) == ("./-m", "./-m-rk3588-8gb")


@pytest.mark.parametrize("place", ["/proc/roofline.png", "."])
def test_a_plot_that_cannot_be_written_is_said_first(rockledge: Run, place: str) -> None:
    done = rockledge("plan", "llama-3-8b", "--plot", place, "--overwrite")
    assert (done.code != 0, done.out) == (True, "")
    assert "choose a" in done.err


def test_an_artifact_is_not_made_again(rockledge: Run, artifact: Path) -> None:
    found = rockledge("plan", artifact, "--json")
    assert found.json["command"] is None
    shown = rockledge("plan", artifact)
    assert "is an artifact of" in shown.err
    assert "To make it" not in shown.out


def test_a_known_shape_takes_less_than_a_second(rockledge: Run) -> None:
    """Counted in calls of functions, which other processes do not change: 2.6 million take 0.6 s where the
    machine is quiet."""
    profile = cProfile.Profile()
    profile.enable()
    rockledge("plan", "llama-3-8b")
    profile.disable()
    assert sum(entry.callcount for entry in profile.getstats()) < 3_600_000


def test_tables_for_people(rockledge: Run) -> None:
    found = rockledge("plan", "llama-3-8b", "--streams", 2)
    assert found.code == 0
    assert "llama-3-8b on rk3588-8gb, 8192 tokens for 2 streams: fits at 4.25 bits a weight" in found.out
    assert "Every figure is modelled" in found.out
    for part in ("kv cache", "8 bits", "does not fit", "decode, tok/s each", "use of the NPU", "--bits 4.25"):
        assert part in found.out


def test_what_would_fit(rockledge: Run) -> None:
    found = rockledge("plan", "llama-3.1-8b", "--context", "44k", "--json").json
    assert found["fits"] is False
    assert 3 < found["would_fit"]["bits"] < 4.25
    assert found["command"].endswith(f"--bits {found['would_fit']['bits']:.2f}")
    out = rockledge("plan", "llama-3.1-8b", "--context", "44k").out
    assert "What would fit:\n" in out
    assert "GB read in each step; decode, tok/s: " in out
    streaming = found["would_fit"]["streaming"]
    assert set(streaming["decode_tok_s"]) == {"NVMe", "eMMC", "SD card"}
    assert streaming["read_mb_per_step"] > 0
    assert streaming["decode_tok_s"]["NVMe"]["likely"] < 5.3


def test_after_an_hour(rockledge: Run) -> None:
    warm = ("plan", "llama-3-8b", "--ambient", 45, "--cooling", "passive")
    found = rockledge(*warm, "--json").json
    later = found["sustained"]
    assert later["ambient_celsius"] == 45
    assert set(later["coolings"]) == {"passive"}
    one = later["coolings"]["passive"]
    assert one["slow"] == {"kelvin_per_watt": 4.03, "seconds": 200}
    for speed in (one["decode_tok_s"], one["prefill_tok_s"]):
        assert 0 < speed["governed"]["likely"] < speed["cold"]["likely"]
        assert 0 < speed["ungoverned"]["likely"] < speed["cold"]["likely"]
    assert one["decode_tok_s"]["cold"] == found["decode_tok_s"]["4"]
    out = rockledge(*warm).out
    assert "after an hour at 45 °C" in out
    assert "without governor" in out


def test_a_board_whose_heat_is_not_known_says_so(rockledge: Run) -> None:
    assert rockledge("plan", "qwen3-1.7b", "--board", "rpi5-8gb", "--json").json["sustained"] is None
    out = rockledge("plan", "qwen3-1.7b", "--board", "rpi5-8gb").out
    assert "Too little is published of the heat of rpi5-8gb" in out


def test_memory_of_the_recommended_precision_adds_up(rockledge: Run) -> None:
    """Between two widths the NPU's buffers lie beside the weights of the budget, not those of the width."""
    memory = rockledge("plan", "qwen3-14b", "--json").json["memory_mb"]
    assert memory["free"] >= 0
    used = sum(memory[part] for part in ("weights", "kv_cache", "arena", "npu_buffers", "free"))
    assert used == pytest.approx(memory["available"], abs=0.01)


def test_no_precision_fits(rockledge: Run) -> None:
    found = rockledge("plan", "llama-3-70b", "--json").json
    assert found["fits"] is False
    assert found["would_fit"]["bits"] is found["would_fit"]["context"] is found["command"] is None
    assert found["memory_mb"]["free"] < 0
    assert found["would_fit"]["model"]
    out = rockledge("plan", "llama-3-70b").out
    assert "does not fit" in out
    assert "To make it" not in out


@pytest.mark.parametrize("whole", [True, False])
def test_a_config_alone(rockledge: Run, config: Path, whole: bool) -> None:
    """It is the shape of Llama 3.2 1B, whose well-known name gives the same."""
    found = rockledge("plan", config if whole else config.parent, "--json").json
    known = rockledge("plan", "llama-3.2-1b", "--json").json
    assert found["command"].split(" --bits")[0].endswith("-o my-1b-rk3588-8gb")
    for key in ("memory_mb", "decode_tok_s", "ttft_ms", "npu_utilisation"):
        assert found[key] == known[key]


def test_checkpoints_and_artifacts(rockledge: Run, checkpoint: Path, artifact: Path, tmp_path: Path) -> None:
    gguf = write_gguf(tmp_path / "small.gguf", random_model("llama3"))
    for model in (checkpoint, artifact, gguf):
        found = rockledge("plan", model, "--context", 256, "--json")
        assert found.code == 0, found.err
        assert found.json["fits"] is True
    same = [rockledge("plan", model, "--json").json["size_mb"] for model in (checkpoint, artifact)]
    assert same[0] == same[1]


@pytest.mark.parametrize("form", ["llama3", "llama3.2-tied-scaled"])
def test_the_header_of_a_gguf_is_enough(rockledge: Run, tmp_path: Path, form: str) -> None:
    """Weights are cut off: with the header alone nothing but a model's shape can be known."""
    whole = write_gguf(tmp_path / "whole.gguf", random_model(form))
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole.read_bytes()[:12_000])
    assert "cut short" in rockledge("inspect", cut, "--json").json["error"]
    plans = [rockledge("plan", path, "--json") for path in (whole, cut)]
    assert [plan.code for plan in plans] == [0, 0], plans[1].err
    assert plans[0].json["memory_mb"] == plans[1].json["memory_mb"]
    cut.write_bytes(whole.read_bytes()[:200])
    assert "damaged or cut short" in rockledge("plan", cut, "--json").json["error"]


def test_of_a_hub_id_only_the_configuration_is_fetched(rockledge: Run, config: Path, hub: Hub) -> None:
    (config.parent / "model.safetensors").write_bytes(b"never read")
    hub.add("me/one", config.parent)
    found = rockledge("plan", "me/one", "--json")
    assert found.code == 0, found.err
    assert found.json["model"] == "one"
    assert found.json["command"].startswith("rockledge quantize me/one -o one-rk3588-8gb")
    assert not [line for line in hub.log if "safetensors" in line]


def test_a_hub_id_that_has_no_configuration(rockledge: Run, hub: Hub, tmp_path: Path) -> None:
    found = rockledge("plan", "me/none", "--json")
    assert found.code == 1
    assert "me/none" in found.json["error"]
    found = rockledge("plan", "me/none:Q8_0", "--json")
    assert "rockledge pull me/none:Q8_0" in found.json["error"]


def test_where_nothing_of_ours_runs(rockledge: Run) -> None:
    found = rockledge("plan", "qwen3-4b", "--board", "rk3576-8gb", "--json")
    assert found.code == 1
    assert "no int8 dot product" in found.json["reason"]
    usual = rockledge("plan", "qwen3-4b", "--json").json
    assert {"fits", "memory_mb", "decode_tok_s", "prefill_tok_s", "ttft_ms", "npu_utilisation"} <= set(usual)
    assert all(found.json[key] is None for key in ("memory_mb", "decode_tok_s", "energy_j_per_token"))
    # airockchip/rknn-llm README.md v1.2.1b1, Qwen3-4B, w4a16.
    (row,) = [row for row in found.json["published"] if row["model"] == "Qwen3-4B"]
    assert row["decode_tok_s"] == 5.52
    assert "What the vendor published" in rockledge("plan", "qwen3-4b", "--board", "rk3576-8gb").out


@pytest.mark.parametrize(
    "arguments, code, said",
    [
        (("lama-3-8b",), 1, "did you mean llama-3-8b"),
        (("llama-3-8b", "--board", "rk3588-8g"), 2, "such as rk3588-8gb"),
        (("llama-3-8b", "--context", "9k"), 2, "made for a context of 8192 tokens"),
        (("llama-3-8b", "--streams", "100"), 2, "100 streams, expected at most"),
        (("llama-3-8b", "--context", "0"), 2, "context"),
        (("llama-3-8b", "--plot", "none/of/it.png"), 2, "the folder of"),
        (("llama-3-8b", "--cooling", "water"), 2, "expected one of passive, heat-sink, fan, bare"),
        (("qwen3-4b", "--board", "rpi5-8gb", "--cooling", "fan"), 2, "heat of a Raspberry Pi 5"),
        (("llama-3-8b", "--ambient", "nan"), 2, "ambient"),
        (("llama-3-8b", "--ambient", "400"), 2, "ambient"),
    ],
)
def test_what_is_wrong_is_said(rockledge: Run, arguments: tuple[str, ...], code: int, said: str) -> None:
    found = rockledge("plan", *arguments, "--json")
    assert (found.code, found.json["exit_code"]) == (code, code)
    assert said in found.json["error"]


def test_a_damaged_config(rockledge: Run, config: Path) -> None:
    config.write_text("{")
    assert "is not readable JSON" in rockledge("plan", config, "--json").json["error"]
    config.write_text(json.dumps({**CONFIG, "hidden_size": -1}))
    assert rockledge("plan", config, "--json").code == 1


def test_the_roofline(rockledge: Run, tmp_path: Path) -> None:
    target = tmp_path / "roofline.png"
    assert rockledge("plan", "smollm2-135m", "--plot", target).code == 0
    assert target.read_bytes().startswith(b"\x89PNG")
    again = rockledge("plan", "smollm2-135m", "--plot", target, "--json")
    assert again.code == 2
    assert "--overwrite" in again.json["error"]
