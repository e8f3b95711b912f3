"""A hub of models on the loopback, as far as huggingface_hub's downloads need one."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c0ffee" * 6 + "c0ff"


@dataclass(slots=True)
class Hub:
    """Has one model, `org/tiny`."""

    endpoint: str
    downloads: Counter[str] = field(default_factory=Counter)
    """How often each file was fetched."""
    tokens: set[str] = field(default_factory=set)
    """What those who asked for the model have shown."""


@contextmanager
def hub_of(folder: Path) -> Iterator[Hub]:
    """Serves the files of a folder meanwhile."""
    hub = Hub(endpoint="")

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            if "org/tiny" in self.path:
                hub.tokens.add(self.headers.get("Authorization", ""))
            if self.path.startswith("/api/models/org/tiny/tree/"):
                told = [
                    {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0"}
                    for file in sorted(folder.iterdir())
                ]
                self._send(json.dumps(told).encode(), {}, body=body)
                return
            if self.path.startswith("/api/models/org/tiny"):
                model = {"id": "org/tiny", "sha": COMMIT, "siblings": []}
                self._send(json.dumps(model).encode(), {}, body=body)
                return
            name = self.path.rpartition("/")[2]
            file = folder / name
            if not file.is_file():
                self.send_error(404)
                return
            content = file.read_bytes()
            if body:
                hub.downloads[name] += 1
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            self._send(content, {"ETag": etag, "X-Repo-Commit": COMMIT}, body=body)

        def _send(self, content: bytes, headers: dict[str, str], *, body: bool) -> None:
            self.send_response(200)
            for header, value in (headers | {"Content-Length": str(len(content))}).items():
                self.send_header(header, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
