"""The two servers: how each is started for a measure, and what its processes take of the memory."""

import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.llama_cpp import tool
from bench.machine import plain_environment
from bench.models import UnavailableError

OURS, THEIRS = "rockledge", "llama-server"
START_SECONDS = 120
MOST_ROOM = 8192  # SmolLM2's context: ours never has room for more tokens than one sequence may have


@dataclass(frozen=True)
class Server:
    """A running server: base URL and the process that was started."""

    url: str
    pid: int


@dataclass(frozen=True)
class Size:
    """What a measure needs of a server: sequences at once, and tokens of the longest."""

    streams: int
    context: int


@contextmanager
def running(engine: str, model: Path, size: Size, threads: int) -> Iterator[Server]:
    """A server of `engine` over `model` that is ready; it ends with the block.

    Raises UnavailableError with the end of its log where it does not start.
    """
    with tempfile.TemporaryFile() as log:
        start = {OURS: _ours, THEIRS: _theirs}[engine]
        command, url = start(model, size, threads)
        words = [str(word) for word in command]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, env=plain_environment()) as process:
            try:
                if not _ready(process, url):
                    log.seek(0)
                    end = log.read()[-1000:].decode(errors="replace")
                    raise UnavailableError(f"{' '.join(words)} did not start:\n{end}")
                yield Server(url, process.pid)
            finally:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()


def _ours(model: Path, size: Size, threads: int) -> tuple[list[object], str]:
    port = _free_port()
    command = [sys.executable, "-m", "rockledge", "serve", model, "--threads", threads, "--npu", "off"]
    room = max(size.context, min(size.streams * size.context, MOST_ROOM))
    flags = ["--ctx", room, "--parallel", size.streams, "--port", port, "--json"]
    return [*command, *flags], f"http://127.0.0.1:{port}"


def _theirs(model: Path, size: Size, threads: int) -> tuple[list[object], str]:
    port = _free_port()
    # -c is the room of all slots together.
    room = ["--parallel", size.streams, "-c", size.streams * size.context, "-fa", "on"]
    command = [tool("llama-server"), "-m", model, "-t", threads, *room, "--port", port, "--no-ui"]
    return command, f"http://127.0.0.1:{port}"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def _ready(process: "subprocess.Popen[bytes]", url: str) -> bool:
    until = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=10):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    return False


def family(pid: int) -> list[int]:
    """The process and everything that it has started."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(") ", 1)[1].split()
        except OSError:
            continue  # it has just ended
        parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found


def memory_bytes(pid: int, entry: str = "VmRSS") -> int:
    """Resident bytes of a server's processes together; "VmHWM": the most since `forget_peak`."""
    total = 0
    for one in family(pid):
        for line in Path(f"/proc/{one}/status").read_text().splitlines():
            if line.startswith(f"{entry}:"):
                total += int(line.split()[1]) << 10
    return total


def forget_peak(pid: int) -> None:
    """Peaks start again from what is resident now (proc(5), clear_refs)."""
    for one in family(pid):
        Path(f"/proc/{one}/clear_refs").write_text("5")
