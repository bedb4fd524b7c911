"""Names, and what is said of models: tags, ps, show, pull, version, and what is refused."""

import httpx
import pytest
from tests.serve.ollama.conftest import CONTEXT, DETAILS
from tests.serve.scripted_engine import ScriptedEngine

from rockledge.serve.ollama.listing import parameter_size

SHOWN = ["scripted:latest", "Assist:4b", "org/voice:latest"]


def test_every_name_is_listed_with_its_tag(qwen: httpx.Client) -> None:
    models = qwen.get("/api/tags").json()["models"]
    assert [model["name"] for model in models] == [model["model"] for model in models] == SHOWN
    assert models[0] == {
        "name": "scripted:latest",
        "model": "scripted:latest",
        "modified_at": "2026-11-30T12:00:00+00:00",
        "size": DETAILS.bytes,
        "digest": DETAILS.digest,
        "details": {
            "parent_model": "",
            "format": "rockledge",
            "family": "qwen3",
            "families": ["qwen3"],
            "parameter_size": "596M",
            "quantization_level": "4.25 bits",
        },
    }


@pytest.mark.parametrize(
    "name", [*SHOWN, "scripted", "Scripted", "SCRIPTED:LATEST", "assist:4B", "ORG/Voice", "org/voice"]
)
def test_what_is_listed_is_taken_back_in_any_case(
    qwen: httpx.Client, engine: ScriptedEngine, name: str
) -> None:
    body = {"model": name, "messages": [{"role": "user", "content": "Hi"}], "stream": False}
    assert qwen.post("/api/chat", json=body).json()["model"] == name
    assert qwen.post("/api/show", json={"name": name}).status_code == 200  # as it was called before


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_listed_is_taken_by_openais_addresses_too(
    qwen: httpx.Client, engine: ScriptedEngine, name: str
) -> None:
    body = {"model": name, "messages": [{"role": "user", "content": "Hi"}]}
    assert qwen.post("/v1/chat/completions", json=body).status_code == 200


@pytest.mark.parametrize(
    "name", ["llama3.2", "scripted:8b", "assist", "assist:latest", "voice", "org/scripted"]
)
def test_a_model_that_is_not_here_is_not_found(qwen: httpx.Client, name: str) -> None:
    bodies = {
        "/api/chat": {"messages": [{"role": "user", "content": "Hi"}]},
        "/api/generate": {"prompt": "Hi"},
        "/api/embed": {"input": "Hi"},
        "/api/show": {},
    }
    for path, body in bodies.items():
        response = qwen.post(path, json={"model": name, **body})
        assert response.status_code == 404
        assert response.json() == {"error": f'model "{name}" not found, try pulling it first'}


def test_what_is_loaded_is_told_with_its_end(qwen: httpx.Client) -> None:
    qwen.post("/api/generate", json={"model": "scripted", "keep_alive": -1})
    [model] = qwen.get("/api/ps").json()["models"]
    assert (model["name"], model["model"]) == ("scripted:latest", "scripted:latest")
    assert model["expires_at"] == "2300-01-01T00:00:00+00:00"
    assert model["context_length"] == CONTEXT
    assert {"size", "size_vram", "digest", "details"} <= model.keys()


def test_a_model_is_shown_with_what_it_can_do(qwen: httpx.Client, http: httpx.Client) -> None:
    shown = qwen.post("/api/show", json={"model": "scripted", "verbose": True}).json()
    assert shown["capabilities"] == ["completion", "tools", "thinking"]
    assert shown["model_info"]["general.architecture"] == "qwen3"
    assert shown["model_info"]["qwen3.context_length"] == CONTEXT
    assert shown["model_info"]["general.parameter_count"] == DETAILS.parameters
    assert "<|im_start|>" in shown["template"]
    assert "temperature" in shown["parameters"]
    plain = http.post("/api/show", json={"model": "scripted"}).json()
    assert plain["capabilities"] == ["completion", "tools"]


def test_a_model_that_is_here_is_pulled_at_once(qwen: httpx.Client) -> None:
    response = qwen.post("/api/pull", json={"model": "scripted:latest"})
    assert response.headers["content-type"] == "application/x-ndjson"
    statuses = ["pulling manifest", "verifying sha256 digest", "writing manifest", "success"]
    assert response.text.splitlines() == [f'{{"status":"{status}"}}' for status in statuses]
    whole = qwen.post("/api/pull", json={"model": "scripted", "stream": False, "insecure": True})
    assert whole.json() == {"status": "success"}
    for stream in (True, False):
        missing = qwen.post("/api/pull", json={"model": "llama3.2", "stream": stream})
        assert missing.status_code == 404
        assert missing.json()["error"].startswith(
            'model "llama3.2" is not here, and this server fetches none'
        )


@pytest.mark.parametrize(
    ("method", "path", "word"),
    [
        ("POST", "/api/create", "create"),
        ("POST", "/api/copy", "copy"),
        ("DELETE", "/api/delete", "delete"),
        ("POST", "/api/push", "push"),
        ("POST", "/api/blobs/sha256:00", "take"),
    ],
)
def test_what_changes_the_models_is_refused(qwen: httpx.Client, method: str, path: str, word: str) -> None:
    response = qwen.request(method, path, json={"model": "scripted", "source": "a", "destination": "b"})
    assert response.status_code == 403
    assert response.json()["error"].startswith(f"this server does not {word} models; ")


def test_the_version_is_one_of_ollama(qwen: httpx.Client) -> None:
    version = qwen.get("/api/version").json()["version"]
    assert tuple(map(int, version.split("."))) >= (0, 12, 0)
    for path in ("/api/version", "/api/tags", "/api/ps"):
        head = qwen.head(path)
        assert (head.status_code, head.content) == (200, b"")


def test_failures_before_a_route_are_ollamas_too(qwen: httpx.Client) -> None:
    assert qwen.get("/api/nothing").json() == {"error": "this server has no such address"}
    assert qwen.get("/api/chat").json() == {"error": "this address does not take that method"}
    assert list(qwen.post("/api/chat", content=b"x=1", headers={"Content-Type": "text/plain"}).json()) == [
        "error"
    ]


def test_sizes_are_written_as_ollama_does() -> None:
    sizes = {494_032_768: "494M", 1_720_574_976: "1.72B", 7_615_616_512: "7.62B", 135_000: "135K", 12: "12"}
    for count, text in sizes.items():
        assert parameter_size(count) == text
