"""The chain as data: what is made, of what, by which command."""

from dataclasses import dataclass
from pathlib import Path

from examples.industrial.texts import GENERAL, LEARN, WATCHED

RECIPE = Path(__file__).with_name("recipe.yaml")
WIDTHS = ("4.25", "3.25")  # bits a weight
TEACHER = "teacher"
PRUNED, DISTILLED, ALONE, UNADAPTED, FURTHER = "pruned", "distilled", "data-alone", "unadapted", "further"


def plain(bits: str) -> str:
    """The name of the student that learnt further in floats and was then quantized."""
    return f"plain-{bits}"


def aware(bits: str) -> str:
    """The name of the one that learnt as long, the last of it in the grid of so many bits."""
    return f"aware-{bits}"


@dataclass(frozen=True)
class Step:
    """`name` is the directory that it makes. `about` names it in the table. `artifact`: it is quantized."""

    name: str
    about: str
    command: tuple[str, ...]
    artifact: bool = False


def steps(teacher: Path, work: Path, tokens: int, importance: int | None = None) -> list[Step]:
    """All steps in order. Every run of `distill` takes equally many tokens in the same order, so that the
    teacher's adapter and its logits are computed once. `importance`: tokens that pruning looks at, None for
    what the recipe says."""
    data = ("--data", str(work / LEARN), "--data", str(work / GENERAL), "--held-out", str(work / WATCHED))
    recipe = ("--recipe", str(RECIPE))
    cached = ("--cache-logits", str(work / "logits"))
    adapted = (*cached, "--adapt-teacher")

    def learnt(name: str, student: str, about: str, *flags: str, artifact: bool = False) -> Step:
        command = ("distill", str(teacher), str(work / student), "-o", str(work / name))
        return Step(name, about, (*command, *recipe, *data, "--tokens", str(tokens), *flags), artifact)

    calibration = ("--calibration", str(work / LEARN))
    few = () if importance is None else ("--tokens", str(importance))
    found = [
        Step(
            PRUNED,
            "pruned",
            ("prune", str(teacher), "-o", str(work / PRUNED), *recipe, *calibration, *few),
        ),
        learnt(DISTILLED, PRUNED, "distilled", *adapted),
        learnt(ALONE, PRUNED, "data alone, no teacher", "--data-weight", "1"),
        learnt(FURTHER, DISTILLED, "distilled twice as long", *adapted, *_FURTHER),
    ]
    for bits in WIDTHS:
        source = ("quantize", str(work / FURTHER), "-o", str(work / plain(bits)), "--bits", bits)
        found += [
            Step(plain(bits), f"{bits} bits, plain", (*source, *calibration), artifact=True),
            learnt(
                aware(bits),
                DISTILLED,
                f"{bits} bits, quantisation-aware",
                *adapted,
                *_FURTHER,
                *_IN_GRID,
                "--quantization-aware",
                str(work / plain(bits) / "recipe.yaml"),
                "--float-tokens",
                str(tokens * 7 // 8),
                artifact=True,
            ),
        ]
    return [*found, learnt(UNADAPTED, PRUNED, "distilled, teacher not adapted", *cached)]


_FURTHER = ("--learning-rate", "2e-4")
# With so few tokens scales can be learnt, and codes cannot (docs/log.md).
_IN_GRID = ("--fixed-codes", "--grid-learning-rate", "3e-4")
