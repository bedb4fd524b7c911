"""What an installation weighs: `python -m bench.install_size` adds up the files of what pyproject.toml
requires, with all that those packages require, as installed in this environment."""

from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import tomllib
from packaging.requirements import Requirement

_PROJECT = Path(__file__).parent.parent / "pyproject.toml"


def main() -> None:
    """Prints megabytes and packages of the base, of the base without gguf, and with each extra that is
    installed."""
    project = tomllib.loads(_PROJECT.read_text())["project"]
    base = project["dependencies"]
    rows = {"base": base, "base without gguf": [one for one in base if not one.startswith("gguf")]}
    rows |= {
        f"with {extra}": base + project["optional-dependencies"][extra]
        for extra in ("hub", "serve", "quantize")
    }
    for name, requirements in rows.items():
        sizes = closure(requirements)
        print(f"{name:<20}{sum(sizes.values()) / 1e6:9.1f} MB in {len(sizes)} packages")


def closure(requirements: Iterable[str]) -> dict[str, int]:
    """Bytes of the packages of these requirements and of all that they require, by name."""
    found: dict[str, int] = {}
    left = [Requirement(one).name for one in requirements]
    while left:
        name = left.pop().lower().replace("_", "-")
        if name in found:
            continue
        package = metadata.distribution(name)
        files = [Path(str(package.locate_file(file))) for file in package.files or []]
        found[name] = sum(file.stat().st_size for file in files if file.is_file())
        needed = [Requirement(one) for one in package.requires or []]
        left += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


if __name__ == "__main__":
    main()
