"""Well-known names stand for the shapes that the Hub has: parameters are those that its pages show."""

import pytest

from rockledge.model.block import decoder
from rockledge.model.known_shapes import KNOWN_SHAPES, find_shape, nearest_shapes

# As the Hub counts them in the safetensors files, a tied matrix once; of Gemma 3 4B and 12B the text model.
PARAMETERS = {
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "smollm2-1.7b": 1_711_376_384,
    "smollm3-3b": 3_075_098_624,
    "tinyllama-1.1b": 1_100_048_384,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "mistral-7b": 7_248_023_552,
    "mistral-nemo-12b": 12_247_782_400,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
    "gemma-2-2b": 2_614_341_888,
    "gemma-2-9b": 9_241_705_984,
    "gemma-3-270m": 268_098_176,
    "gemma-3-1b": 999_885_952,
    "gemma-3-4b": 3_880_263_168,
    "gemma-3-12b": 11_766_034_176,
    "phi-3-mini": 3_821_079_552,
    "phi-4-mini": 3_836_021_760,
    "phi-4": 14_659_507_200,
    "granite-3.3-2b": 2_533_539_840,
    "granite-3.3-8b": 8_170_864_640,
    "olmo-2-1b": 1_484_916_736,
    "olmo-2-7b": 7_298_617_344,
}


@pytest.mark.parametrize("name", KNOWN_SHAPES)
def test_parameters(name: str) -> None:
    config = KNOWN_SHAPES[name].config
    assert decoder(config).parameters == PARAMETERS[name]


@pytest.mark.parametrize(
    "name, known",
    [
        ("llama-3-8b", "llama-3-8b"),
        ("Llama-3.2-1B-Instruct", "llama-3.2-1b"),
        ("meta-llama/Meta-Llama-3-8B-Instruct", "llama-3-8b"),
        ("google/gemma-3-1b-it", "gemma-3-1b"),
        ("Qwen2.5-7B-Instruct", "qwen2.5-7b"),
    ],
)
def test_names_as_people_write_them(name: str, known: str) -> None:
    assert find_shape(name) is KNOWN_SHAPES[known]


@pytest.mark.parametrize(
    "name", ["", "llama", "llama-3-9b", "llama-3-8b-instruct-it-x", "../llama-3-8b", "me/llama-3-8b"]
)
def test_other_names_are_not_known(name: str) -> None:
    assert find_shape(name) is None


def test_a_mistyped_name_has_near_ones() -> None:
    assert "llama-3-8b" in nearest_shapes("lama-3-8b")
    assert nearest_shapes("zzz") == []


def test_windows_are_those_of_the_family() -> None:
    """Gemma 3: five layers of six see 512 (1B) or 1,024 tokens (model card and config.json)."""
    windows = KNOWN_SHAPES["gemma-3-1b"].config.windows
    assert windows[:6] == (512, 512, 512, 512, 512, 0)
    assert KNOWN_SHAPES["mistral-7b"].config.windows in ((), (0,) * 32)
