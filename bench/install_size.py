"""What an installation weighs: `python -m bench.install_size` adds up the files of what pyproject.toml
requires, with all that those packages require, as installed in this environment. Then it weighs the wheels
that `make wheel` has put into dist/: the gateway's, the laboratory's, and both, which were one wheel once."""

import platform
import zipfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import tomllib
from packaging.requirements import Requirement
from tools.wheel import PACKAGES

_ROOT = Path(__file__).parent.parent


def main() -> None:
    """Prints megabytes and packages of the base, of the base without gguf, and with each extra that is
    installed; then those of the wheels for this processor, and by how much the gateway's is smaller."""
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    base = project["dependencies"]
    rows = {"base": base, "base without gguf": [one for one in base if not one.startswith("gguf")]}
    rows |= {
        f"with {extra}": base + project["optional-dependencies"][extra]
        for extra in ("hub", "serve", "quantize")
    }
    for name, requirements in rows.items():
        sizes = closure(requirements)
        print(f"{name:<20}{sum(sizes.values()) / 1e6:9.1f} MB in {len(sizes)} packages")
    try:
        weights = {package.name: weigh(find_wheel(_ROOT / "dist", package.name)) for package in PACKAGES}
    except FileNotFoundError as error:
        print(f"no wheels are weighed: {error}; run `make wheel`")
        return
    both = Weight(*map(sum, zip(*weights.values(), strict=True)))
    for name, weight in {**weights, "both": both}.items():
        print(
            f"{name:<20}{weight.wheel / 1e6:9.2f} MB wheel, {weight.installed / 1e6:.2f} MB installed, "
            f"{weight.files} files"
        )
    gateway = weights[PACKAGES[0].name]
    less = Weight(*(round(100 * (1 - own / all_)) for own, all_ in zip(gateway, both, strict=True)))
    of = f"{less.wheel} % of the wheel, {less.installed} % of what it installs, {less.files} % of the files"
    print(f"a gateway is spared {of}")


class Weight(NamedTuple):
    """Bytes of a wheel's file, bytes that it installs, and files."""

    wheel: int
    installed: int
    files: int


def find_wheel(folder: Path, name: str) -> Path:
    """The newest wheel of that name for this processor. FileNotFoundError where there is none."""
    found = sorted(folder.glob(f"{name}-*_{platform.machine()}.whl"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(f"{folder} has no wheel {name} for {platform.machine()}")
    return found[-1]


def weigh(wheel: Path) -> Weight:
    """What a wheel weighs, packed and installed (without the bytecode that pip adds)."""
    with zipfile.ZipFile(wheel) as packed:
        entries = packed.infolist()
    return Weight(wheel.stat().st_size, sum(entry.file_size for entry in entries), len(entries))


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
