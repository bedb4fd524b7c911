"""The OpenAPI document says what the server answers: schemathesis asks, with right and wrong bodies."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.serve.conftest import Serving
from tests.serve.scripted_engine import ScriptedEngine

# Seconds for a model that writes, and for the addresses of one that pools: two minutes in all.
SERVERS = [(False, 100, "."), (True, 20, "embed|rerank")]
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
]
# A server that is busy and an answer that comes too late are failures that the document has.
SETTINGS = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 503, 504]

[parameters]
name = "scripted"
"""
# A model of any other name is 404, and an unknown field 400, before the rest of a body is read.
HOOKS = """
import schemathesis

@schemathesis.hook
def before_load_schema(context, document):
    for body in document["components"]["schemas"].values():
        properties = body.get("properties", {})
        if "model" in properties:
            properties["model"] = {"const": "scripted"}
            body["additionalProperties"] = False
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("schemathesis") is None, reason="needs the extra clients")
@pytest.mark.parametrize("pools, seconds, paths", SERVERS, ids=["writing", "pooling"])
def test_every_answer_is_one_that_the_document_has(
    new_server: type[Serving], tmp_path: Path, pools: bool, seconds: int, paths: str
) -> None:
    server = new_server(ScriptedEngine(), context=4096, pools=pools)
    (tmp_path / "schemathesis.toml").write_text(SETTINGS)
    (tmp_path / "hooks.py").write_text(HOOKS)
    options = {
        "max-time": seconds,
        "checks": ",".join(CHECKS),
        "include-path-regex": paths,
        "seed": 20,
        "generation-database": "none",
        "request-timeout": 20,
        "max-failures": 20,
    }
    program = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run"]
    words = [f"--{name}={value}" for name, value in options.items()]
    try:
        done = subprocess.run(
            [*program, *words, "--no-color", f"{server.url}/openapi.json"],
            cwd=tmp_path,
            env=os.environ | {"COLUMNS": "120", "SCHEMATHESIS_HOOKS": "hooks"},
            capture_output=True,
            text=True,
        )
    finally:
        server.close()
    assert done.returncode == 0, done.stdout[-12000:] + done.stderr[-3000:]
    assert "Stateful (" in done.stdout, done.stdout[-3000:]
