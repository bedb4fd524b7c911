"""Recipe files of prune and distill: strict, and the published ones are complete."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rockledge.errors import UsageError
from rockledge.recipe_file import read_recipe_file

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
KINDS: dict[str, Any] = {"count": int, "rate": float, "bf16": bool, "name": str, "names": list[str]}


def written(place: Path, content: str) -> Path:
    file = place / "recipe.yaml"
    file.write_text(content, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("version: 1\ndistil: {}", "has no key 'distil'; did you mean distill"),
        ("version: 2", "has version 2, expected 1"),
        ("title: x", "has version None, expected 1"),
        ("version: '1'", "has version '1', expected 1"),
        ("version: true", "has version True, expected 1"),
        ("- 1", "is not a mapping"),
        ("version: 1\ndistill: [1]", "distill is not a mapping"),
        ("version: 1\nteacher: 3", "teacher is '3', expected text"),
        ("version: 1\nversion: 1", "'version' occurs twice"),
        ("version: 1\ndistill: {count: 1, count: 2}", "'count' occurs twice"),
        ("version: [", "cannot be read as YAML"),
        ("version: 1\ndistill: {cont: 3}", "distill has no key 'cont'; did you mean count"),
        ("version: 1\ndistill: {count: 3.5}", "distill.count is '3.5', expected a whole number"),
        ("version: 1\ndistill: {count: true}", "distill.count is 'True', expected a whole number"),
        ("version: 1\ndistill: {rate: .nan}", "distill.rate is 'nan', expected a number"),
        ("version: 1\ndistill: {bf16: 1}", "distill.bf16 is '1', expected true or false"),
        (
            "version: 1\ndistill: {count: 1" + "0" * 400 + "}",
            "distill.count is '10+', expected a whole number",
        ),
        ("version: 1\ndistill: {count: !!int ''}", "cannot be read as YAML"),
        ("version: 1\ndistill: {bf16: !!bool maybe}", "cannot be read as YAML"),
        ("version: 1\ndistill: {name: !!timestamp soon}", "cannot be read as YAML"),
        ("version: 1\nsources: {a: &a [x], b: [*a, *a]}", "an alias such as .a stands for a value"),
        ("version: 1\ndistill: {names: [1]}", r"distill.names is '\[1\]', expected a list of texts"),
    ],
)
def test_what_is_wrong_is_named(content: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        read_recipe_file(written(tmp_path, content)).section("distill", KINDS)


def test_numbers_may_be_written_with_powers(tmp_path: Path) -> None:
    """YAML 1.1 reads 94e9 and 1e-4 as text."""
    file = written(tmp_path, "version: 1\ndistill: {count: 94e9, rate: 1e-4, names: a, bf16: true}")
    found = read_recipe_file(file).section("distill", KINDS)
    assert found == {"count": 94_000_000_000, "rate": 1e-4, "names": ["a"], "bf16": True}


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.mktemp("r") / "recipe.yaml"
    file.write_bytes(content)
    with pytest.raises(UsageError):
        read_recipe_file(file)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_number_of_a_published_recipe_has_its_source(path: Path) -> None:
    recipe = read_recipe_file(path)
    content = yaml.safe_load(path.read_text())
    from rockledge.distillation.cost import HARDWARE_SOURCES

    sources = {**HARDWARE_SOURCES, **recipe.sources}
    for section in ("prune", "distill", "hardware"):
        for key, value in content.get(section, {}).items():
            if isinstance(value, bool) or key == "gpu":
                continue
            assert sources.get(f"{section}.{key}"), f"{section}.{key}"


def test_there_are_the_four() -> None:
    assert [path.stem for path in RECIPES] == [
        "llama-3-8b-teaches-3b",
        "llama-3-8b-to-3b",
        "llama-3-8b-to-4b",
        "qwen3-8b-teaches-qwen3-4b",
    ]


@pytest.mark.parametrize(
    ("name", "processes", "machines"),
    [("one-gpu", 1, 1), ("four-gpus", 4, 1), ("eight-gpus", 8, 1), ("two-nodes", 16, 2)],
)
def test_accelerate_takes_its_configurations(name: str, processes: int, machines: int) -> None:
    pytest.importorskip("accelerate")
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(RECIPES[0].parent / "accelerate" / f"{name}.yaml"))
    assert (config.num_processes, config.num_machines) == (processes, machines)
    assert config.mixed_precision == "bf16"
    if processes > 1:
        assert config.distributed_type == "FSDP"
        # Else the teacher of every process but the first would be empty.
        assert config.fsdp_config["fsdp_cpu_ram_efficient_loading"] is False
