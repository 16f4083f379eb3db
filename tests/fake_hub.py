"""A real HTTP server that answers as the Hugging Face Hub does, as far as the harness asks it."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import urlsplit

from harness.registry import Candidate

SHA = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "model.safetensors": b"\x00" * 3000,
    "consolidated.safetensors": b"\x00" * 3000,
    "pytorch_model.bin": b"pickle",
    "modeling_custom.py": b"raise SystemExit",
    "original/params.json": b"{}",
    "README.md": b"# model",
}


class Hollow(NamedTuple):
    """A large file of which only the beginning exists; zeros follow."""

    head: bytes
    size: int


class FakeHub(ThreadingHTTPServer):
    """The Hub endpoints that are used, over one repository "org/tiny"."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes | Hollow] = dict(FILES)
        self.sha = SHA
        self.gated: bool | str = False
        self.status: dict[str, int] = {}
        self.error_code: str | None = None
        self.info_body: bytes | None = None
        self.refuse_files = False
        self.lost: str | None = None
        self.ranges = True
        """False: a server that ignores the Range header and sends the file from its start."""
        self.claimed: dict[str, int] = {}
        """Sizes told by the API where they differ from the truth."""
        self.seen: list[str] = []
        self.sent = 0
        """Bytes of file bodies handed to the sockets."""
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def size_of(self, name: str) -> int:
        body = self.files[name]
        return self.claimed.get(name, body.size if isinstance(body, Hollow) else len(body))

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up early is what these tests want; anything else is shown."""
        import sys

        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextmanager
def serving() -> Iterator[FakeHub]:
    server = FakeHub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeHub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub = self.server
        path = urlsplit(self.path).path
        hub.seen.append(path)
        if path.startswith("/api/models/"):
            repo, _, rest = path.removeprefix("/api/models/").partition("/revision/")
            repo, _, tree = repo.partition("/tree/")
            if repo in hub.status:
                self._answer(hub.status[repo], b"{}", {"X-Error-Code": hub.error_code or "Other"})
            elif tree:
                entries = [self._entry(name) for name in hub.files]
                self._answer(200, json.dumps(entries).encode())
            elif rest and rest != hub.sha:
                self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            else:
                self._answer(200, self._info(repo) if hub.info_body is None else hub.info_body)
        elif "/resolve/" in path and not hub.refuse_files:
            self._file(path.split("/resolve/")[1].split("/", 1)[1])
        elif "/resolve/" in path:
            self._answer(403, b"", {"X-Error-Code": "GatedRepo"})
        else:
            self._answer(200, b"")

    def _file(self, name: str) -> None:
        hub = self.server
        body = hub.files[name]
        headers = {"ETag": f'"{name}"', "X-Repo-Commit": hub.sha}
        if name == hub.lost:
            self._answer(404, b"", headers)
            return
        whole = body if isinstance(body, Hollow) else Hollow(body, len(body))
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked is None or not hub.ranges:
            self._answer(200, whole.head, headers, whole.size)
            return
        first, last = int(asked[1]), min(int(asked[2]), whole.size - 1)
        if first >= whole.size:
            self._answer(416, b"", headers)
            return
        piece = whole.head[first : last + 1].ljust(last + 1 - first, b"\0")
        headers["Content-Range"] = f"bytes {first}-{last}/{whole.size}"
        self._answer(206, piece, headers)

    def _info(self, repo: str) -> bytes:
        hub = self.server
        siblings = [{"rfilename": name, "size": hub.size_of(name)} for name in hub.files]
        info = {"id": repo, "sha": hub.sha, "gated": hub.gated, "siblings": siblings}
        return json.dumps(info | {"tags": [], "downloads": 0, "likes": 0}).encode()

    def _entry(self, name: str) -> dict[str, object]:
        return {"type": "file", "path": name, "size": self.server.size_of(name), "oid": name}

    def _answer(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        size: int | None = None,
    ) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body) if size is None else size))
        self.end_headers()
        if self.command != "GET":
            return
        self.wfile.write(body)
        self.server.sent += len(body)
        for _ in range(0, (size or len(body)) - len(body), 1 << 20):
            self.wfile.write(b"\0" * (1 << 20))
            self.server.sent += 1 << 20


def nobody_listens() -> str:
    """HOST:PORT of an endpoint that refuses connections."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}"


def candidate(**source: object) -> Candidate:
    """A candidate of the repository that the server holds, or of another source."""
    return Candidate(name="tiny", source=source or {"repo": "org/tiny"}, licence="MIT", why="Test.")
