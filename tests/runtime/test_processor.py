"""Reading a processor's name and clocks from what x86-64 and arm64 systems say."""

from pathlib import Path

from rockledge.runtime.processor import Processor, this_processor

X86 = """processor\t: 0
model name\t: Some CPU @ 2.60GHz
cpu MHz\t\t: 2596.148
processor\t: 1
model name\t: Some CPU @ 2.60GHz
cpu MHz\t\t: 3100.6
"""
ARM = "processor\t: 0\nBogoMIPS\t: 48.00\nCPU part\t: 0xd0b\n"


def frequencies(tree: Path, kilohertz: list[int]) -> Path:
    for number, value in enumerate(kilohertz):
        place = tree / f"cpu{number}" / "cpufreq"
        place.mkdir(parents=True)
        (place / "scaling_cur_freq").write_text(f"{value}\n")
    (tree / "cpufreq").mkdir()
    return tree


def test_a_processor_without_frequency_scaling_states_its_clocks(tmp_path: Path) -> None:
    assert this_processor(X86, tmp_path, "") == Processor("Some CPU @ 2.60GHz", (2596, 3101))


def test_generations_with_one_name_are_told_apart(tmp_path: Path) -> None:
    """As /proc/cpuinfo has them for a guest: "model" is a number, "model name" is not."""
    text = (
        "vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\nstepping\t: 1\n"
    )
    assert this_processor(text, tmp_path, "").name_and_family == "AMD EPYC, family 25, model 17"
    other = text.replace("25", "26").replace("17", "2")
    assert this_processor(other, tmp_path, "").name_and_family == "AMD EPYC, family 26, model 2"
    assert this_processor("", tmp_path, "Radxa ROCK 5B").name_and_family == "Radxa ROCK 5B"


def test_a_board_has_its_name_in_the_device_tree(tmp_path: Path) -> None:
    tree = frequencies(tmp_path, [1800000, 1800000, 2256000])
    found = this_processor(ARM, tree, "Radxa ROCK 5B\0")
    assert found == Processor("Radxa ROCK 5B", (1800, 1800, 2256))


def test_nothing_known_is_said_so(tmp_path: Path) -> None:
    assert this_processor("", tmp_path / "nowhere", "") == Processor("unknown processor", ())


def test_this_machine_has_a_processor() -> None:
    assert this_processor().name
