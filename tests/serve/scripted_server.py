"""A server over a scripted engine as a process of its own: prints its address, ends with its stdin."""

import sys

from tests.serve.conftest import Serving
from tests.serve.scripted_engine import ScriptedEngine

if __name__ == "__main__":
    server = Serving(ScriptedEngine(), context=4096)
    print(server.url, flush=True)
    sys.stdin.read()
    server.close()
