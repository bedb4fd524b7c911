"""Pages of a file in the page cache: brought in small, and how many are mapped huge."""

from pathlib import Path

from bench.file_pages import forget, huge_share, read_small
from rockledge.synth import synth_artifact


def test_bytes_stay_and_a_file_smaller_than_a_huge_page_has_none(tmp_path: Path) -> None:
    artifact = synth_artifact("toy", tmp_path / "toy")
    file = artifact / "model.safetensors"
    before = file.read_bytes()
    assert len(before) < 2 << 20
    for bring in (forget, read_small):
        bring(file)
        assert huge_share(artifact) == 0.0
        assert file.read_bytes() == before
