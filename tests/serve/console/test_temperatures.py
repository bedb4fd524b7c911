"""The temperatures of a made-up /sys/class/thermal."""

from pathlib import Path

from rockledge.serve.console.temperatures import Temperature, temperatures


def zone(folder: Path, number: int, name: str, text: str | None) -> None:
    """One zone; `text` None: its temperature cannot be read."""
    place = folder / f"thermal_zone{number}"
    place.mkdir()
    (place / "type").write_text(f"{name}\n")
    if text is not None:
        (place / "temp").write_text(text)


def test_zones_in_their_order_without_those_that_cannot_be_read(tmp_path: Path) -> None:
    zone(tmp_path, 10, "npu-thermal", "41000\n")
    zone(tmp_path, 0, "soc-thermal", "47615\n")
    zone(tmp_path, 1, "asleep", None)
    zone(tmp_path, 2, "odd", "")
    zone(tmp_path, 3, "cold", "-5000\n")
    (tmp_path / "cooling_device0").mkdir()
    assert temperatures(tmp_path) == [
        Temperature("soc-thermal", 47.615),
        Temperature("cold", -5.0),
        Temperature("npu-thermal", 41.0),
    ]


def test_a_machine_without_zones_has_none(tmp_path: Path) -> None:
    assert temperatures(tmp_path) == temperatures(tmp_path / "missing") == []
