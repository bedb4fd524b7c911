"""Run by an interpreter under test: what a bare installation makes of an artifact, as JSON on stdout.

Usage: python generate.py ARTIFACT PROMPT TOKENS LOGITS.npy
"""

import json
import platform
import sys
from importlib.util import find_spec

import numpy as np

import rockledge
from rockledge import Model


def main() -> None:
    artifact, prompt, tokens, logits = sys.argv[1:]
    with Model.load(artifact, threads=2) as model:
        ids = model.tokens(prompt)
        np.save(logits, model.engine.logits(ids))
        answer = {
            "text": model.generate(prompt, max_tokens=int(tokens)),
            "kernel": model.engine.kernel,
            "machine": platform.machine(),
            "torch": find_spec("torch") is not None,
            "package": rockledge.__file__,
        }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
