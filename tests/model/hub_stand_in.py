"""A stand-in for the Hugging Face Hub: the part of its HTTP API that huggingface_hub uses for models.

The addresses and fields are those of https://huggingface.co/docs/hub/api and of git-lfs's batch API
(https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md).
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_right"


@dataclass
class Repository:
    """Files by path. A gated one shows its list to everybody and its files to holders of the token."""

    files: dict[str, bytes] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    commits: int = 1

    @property
    def sha(self) -> str:
        """Of the newest commit."""
        return hashlib.sha1(f"{self.commits}".encode()).hexdigest()

    @property
    def card(self) -> dict[str, Any]:
        """The front matter of the model card."""
        text = self.files.get("README.md", b"").decode()
        return yaml.safe_load(text.split("---")[1]) if text.startswith("---") else {}


@dataclass
class Hub:
    """`cut`: files of which only so many bytes are sent before the connection is closed. `stalled`: the same,
    but the connection stays open until `stop` is set; `reached` is set meanwhile. `log` has the method and
    path of every request."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    stalled: dict[str, int] = field(default_factory=dict)
    reached: threading.Event = field(default_factory=threading.Event)
    stop: threading.Event = field(default_factory=threading.Event)
    objects: dict[str, bytes] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    url: str = ""

    def add(self, name: str, directory: Path, **facts: Any) -> Repository:
        """A repository with the files of a directory."""
        files = {
            path.relative_to(directory).as_posix(): path.read_bytes()
            for path in directory.rglob("*")
            if path.is_file()
        }
        self.repositories[name] = Repository(files, **facts)
        return self.repositories[name]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: ClassVar[Hub]

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        pass

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: Any) -> None:
        self._answer(200, json.dumps(value).encode(), Content_Type="application/json")

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._answer(status, b"{}", X_Error_Code=code, X_Error_Message=message)

    @property
    def _known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repository(self, name: str) -> Repository | None:
        """None, and the refusal is sent, where there is none that this user may see."""
        found = self.hub.repositories.get(name)
        if found is None or (found.private and not self._known):
            # The Hub does not tell strangers which private repositories there are.
            self._refuse(404 if self._known else 401, "RepoNotFound", "Repository not found")
            return None
        return found

    def do_HEAD(self) -> None:
        self._get()

    def do_GET(self) -> None:
        self._get()

    def _get(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.log.append(f"{self.command} {path}")
        if at := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+", path):
            if repository := self._repository(at[1]):
                self._json(
                    [
                        {"type": "file", "path": name, "size": len(data), "oid": _digest(data)}
                        for name, data in repository.files.items()
                    ]
                )
        elif at := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+)?", path):
            if repository := self._repository(at[1]):
                self._json(_about(at[1], repository))
        elif at := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            if repository := self._repository(at[1]):
                self._file(repository, at[2])
        else:
            self._answer(404)

    def _file(self, repository: Repository, name: str) -> None:
        if repository.gated and not self._known:
            self._refuse(401, "GatedRepo", "Access to this model is restricted")
            return
        data = repository.files.get(name)
        if data is None:
            self._refuse(404, "EntryNotFound", "Entry not found")
            return
        first = 0
        if at := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            first = int(at[1])
        part = data[first:]
        headers = {"ETag": f'"{_digest(data)}"', "X_Repo_Commit": repository.sha}
        headers |= {"Content_Length": str(len(part)), "Accept_Ranges": "bytes"}
        if first:
            headers["Content_Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        ends = {**self.hub.cut, **self.hub.stalled}
        cut = name in ends and self.command == "GET"
        if cut:
            part = part[: max(0, ends[name] - first)]
            self.close_connection = True
        self._answer(206 if first else 200, part, **headers)
        if cut and name in self.hub.stalled:
            self.wfile.flush()
            self.hub.reached.set()
            self.hub.stop.wait()

    def do_PUT(self) -> None:
        data = self._body()
        self.hub.log.append(f"PUT {self.path}")
        assert hashlib.sha256(data).hexdigest() == self.path.removeprefix("/lfs/")
        self.hub.objects[self.path.removeprefix("/lfs/")] = data
        self._answer(200)

    def do_POST(self) -> None:
        path, body = unquote(urlsplit(self.path).path), self._body()
        self.hub.log.append(f"POST {path}")
        if path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif not self._known:
            self._refuse(401, "", "Invalid username or password.")
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif at := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            files = [file["path"] for file in json.loads(body)["files"]]
            large = (".safetensors", ".png")
            modes = {name: "lfs" if name.endswith(large) else "regular" for name in files}
            self._json(
                {"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes.items()]}
            )
        elif path.endswith(".git/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            for one in objects:
                one["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}}
            self._json({"transfer": "basic", "objects": objects})
        elif at := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            self._commit(at[1], [json.loads(line) for line in body.splitlines()])
        else:
            self._answer(404)

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repositories:
            self._answer(409, b'{"error": "You already created this model repo"}')
            return
        private = asked.get("private") is True or asked.get("visibility") == "private"
        self.hub.repositories[name] = Repository({".gitattributes": b""}, private=private)
        self._json({"url": f"{self.hub.url}/{name}", "name": name})

    def _commit(self, name: str, operations: list[dict[str, Any]]) -> None:
        repository = self.hub.repositories[name]
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                repository.files[value["path"]] = self.hub.objects[value["oid"]]
            elif operation["key"] == "deletedFile":
                del repository.files[value["path"]]
        repository.commits += 1
        address = f"{self.hub.url}/{name}/commit/{repository.sha}"
        self._json({"success": True, "commitUrl": address, "commitOid": repository.sha})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))


def _digest(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def _about(name: str, repository: Repository) -> dict[str, Any]:
    card = repository.card
    return {
        "id": name,
        "sha": repository.sha,
        "private": repository.private,
        "gated": "auto" if repository.gated else False,
        "tags": card.get("tags", []),
        "library_name": card.get("library_name"),
        "cardData": card,
        "siblings": [
            {"rfilename": path, "size": len(data), "blobId": _digest(data)}
            for path, data in repository.files.items()
        ],
    }


@contextmanager
def hub_stand_in() -> Iterator[Hub]:
    """A running one; its `url` belongs into HF_ENDPOINT."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.stop.set()
        server.shutdown()
        server.server_close()
        thread.join()
