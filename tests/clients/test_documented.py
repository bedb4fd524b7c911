"""The versions of clients that docs/api.md names are those that are tested."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_table_has_the_tested_versions() -> None:
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    table = page.partition("### Clients")[2].partition("###")[0]
    named = re.findall(r"(?m)^\| ([a-z-]+) \| ([\d.]+) \|", table)
    pins = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert len(named) > 5
    assert [name for name, version in named if f"\n{name}=={version}" not in pins] == []
