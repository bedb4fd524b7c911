"""How long `rockledge doctor` takes, and whether it has alarms.

    python -m bench.doctor ARTIFACT MODEL

Prints seconds by the clock, seconds of processors and the load of the machine: the first counts only where
nobody else computes.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time

from bench.machine import commit, processor


def main() -> int:
    """Runs the command once, as a user would."""
    parser = argparse.ArgumentParser(description="Times `rockledge doctor`.")
    parser.add_argument("artifact")
    parser.add_argument("model")
    args = parser.parse_args()
    started = time.monotonic()
    words = ["doctor", args.artifact, "--reference", args.model, "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "rockledge", *words], stdout=subprocess.PIPE, text=True, check=False
    )
    seconds = time.monotonic() - started
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    body = json.loads(done.stdout)
    if "error" in body:
        print(body["error"], file=sys.stderr)
        return 1
    print(f"{processor()}, {len(os.sched_getaffinity(0))} processors, {commit()}")
    print(
        f"{seconds:.0f} s, {used.ru_utime + used.ru_stime:.0f} s of processors, "
        f"load {os.getloadavg()[0]:.1f}; {body['alarms']} alarms, {len(body['findings'])} findings"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
