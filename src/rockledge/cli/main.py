"""The `rockledge` program: finds the command, runs it, and turns its outcome into an exit code."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from rockledge.cli import (
    bench,
    chat,
    clean,
    completion,
    demo,
    distill,
    doctor,
    embed,
    evaluate,
    export,
    help,  # noqa: A004
    inspect,
    keys,
    list_models,
    npu,
    plan,
    prune,
    pull,
    push,
    quantize,
    remove,
    run,
    serve,
    synth,
)
from rockledge.cli.command import Command
from rockledge.cli.overview import overview
from rockledge.cli.parser import build_parser, check_words
from rockledge.cli.shown import safe
from rockledge.cli.terminal import Terminal
from rockledge.errors import RockledgeError
from rockledge.pip_command import extra_requirements, pip_install

COMMANDS: tuple[Command, ...] = (
    demo.COMMAND,
    inspect.COMMAND,
    quantize.COMMAND,
    distill.COMMAND,
    plan.COMMAND,
    prune.COMMAND,
    evaluate.COMMAND,
    doctor.COMMAND,
    run.COMMAND,
    chat.COMMAND,
    embed.COMMAND,
    serve.COMMAND,
    keys.COMMAND,
    list_models.COMMAND,
    pull.COMMAND,
    push.COMMAND,
    export.COMMAND,
    remove.COMMAND,
    clean.COMMAND,
    bench.COMMAND,
    synth.COMMAND,
    npu.COMMAND,
    completion.COMMAND,
    help.COMMAND,
)

# Which extra of the package brings a module that only some commands need.
EXTRAS = {
    "quantize": ("torch", "scipy", "huggingface_hub", "matplotlib"),
    "distil": ("transformers", "accelerate", "peft"),
    "serve": ("fastapi", "starlette", "uvicorn", "prometheus_client"),
}
# The second package of this repository: what stands in for the NPU, which a gateway does without.
LABORATORY = "rockledge_npu_lab"

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns 0 (done), 1 (failed), 2 (bad usage) or 130 (Ctrl-C)."""
    _open_closed_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    quiet = "--quiet" in own or "-q" in own
    terminal = Terminal(as_json="--json" in own, quiet=quiet)
    with _log_to_stderr(logging.WARNING if quiet else logging.INFO), _clean_end_on_sigterm():
        return _run(arguments, terminal)


class _Safe(logging.Formatter):
    """Names of files and models cannot change the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return safe(super().format(record))


@contextmanager
def _log_to_stderr(level: int) -> Iterator[None]:
    """Shows what the library logs (such as the chosen kernel) while a command runs."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Safe("%(message)s"))
    logging.getLogger().addHandler(handler)
    logging.getLogger("rockledge").setLevel(level)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


@contextmanager
def _clean_end_on_sigterm() -> Iterator[None]:
    """Lets `kill` unwind like Ctrl-C does, so that unfinished files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _open_closed_streams() -> None:
    """Puts the null device where the caller has closed a standard stream: the next file to be opened would
    take its place, and get what is meant for people."""
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            stream = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 (as long as the process)
            setattr(sys, name, stream)


def _drop_output() -> None:
    """Nothing more is written where nobody reads, or where there is no space: not even while exiting."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _run(arguments: list[str], terminal: Terminal) -> int:
    code = 0
    try:
        code = _outcome(arguments, terminal)
        sys.stdout.flush()
    except OSError as error:
        if code == 0 and not isinstance(error, BrokenPipeError):
            terminal.error(f"rockledge: {_os_sentence(error)}")
        code = code or EXIT_FAILED
    _drop_output()
    return code


def _outcome(arguments: list[str], terminal: Terminal) -> int:
    """The exit code. BrokenPipeError where nobody reads what the command prints."""
    try:
        if not arguments:
            terminal.print(overview(COMMANDS))
            return 0
        args = _parsed(arguments)
        command: Command = args.chosen
        with terminal.quiet_stdout():
            result = command.run(args, terminal)
        if not command.prints_itself:
            terminal.result(result)
        return int(result.get("exit_code", 0))
    except SystemExit as end:  # --help, SIGTERM
        return int(end.code or 0)
    except KeyboardInterrupt:
        terminal.error("\nrockledge: interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        raise
    except RockledgeError as error:
        return _failed(terminal, str(error), error.exit_code)
    except ModuleNotFoundError as error:
        return _failed(terminal, _missing_sentence(error), EXIT_FAILED)
    except OSError as error:
        return _failed(terminal, _os_sentence(error), EXIT_FAILED)
    except Exception as error:
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return _failed(
            terminal, f"unexpected failure ({what}); set ROCKLEDGE_DEBUG=1 for the traceback", EXIT_FAILED
        )


def _parsed(arguments: list[str]) -> argparse.Namespace:
    """The arguments as the command wants them; UsageError for those it does not have."""
    parser = build_parser(COMMANDS)
    check_words(parser, arguments)
    args, more = parser.parse_known_args(arguments)
    args.typed = shlex.join(["rockledge", *arguments])
    prompt = getattr(args, "prompt", None)
    if more and isinstance(prompt, list):  # its words went on after a flag
        prompt += more
    elif more:
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    return args


def _missing_sentence(error: ModuleNotFoundError) -> str:
    if error.name == LABORATORY:
        return (
            "this command needs the Python package rockledge-npu-lab, which is not installed; "
            f"in a clone of Rockledge run: {pip_install('./npu_lab')} (or install its wheel, see docs/npu.md)"
        )
    extra = next((extra for extra, modules in EXTRAS.items() if error.name in modules), None)
    packages = extra_requirements(extra) if extra else [str(error.name)]
    return (
        f"this command needs the Python package {error.name}, which is not installed; "
        f"run: {pip_install(*packages)}"
    )


def _os_sentence(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return "no space left on the device; free some, or choose another place for the output"
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror or error}"


def _failed(terminal: Terminal, sentence: str, code: int) -> int:
    if os.environ.get("ROCKLEDGE_DEBUG") == "1":
        traceback.print_exc()
    terminal.error(f"rockledge: {sentence}")
    with suppress(OSError):  # the output may be why
        terminal.result({"error": sentence, "exit_code": code})
    return code
