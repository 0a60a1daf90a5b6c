"""A hub of one model on 127.0.0.1: what `huggingface_hub` asks of it, answered from a folder."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub_of(model: Path, asked: list[str]) -> Iterator[str]:
    """Serve a model's folder as org/name; the address. `asked` gathers the method, path and range of each request."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
            path = self.path.partition("?")[0]
            if path.startswith("/api/models/org/name"):
                known = about(model)
                said = tree(known) if "/tree/" in path else known
                self._answer(json.dumps(said).encode(), {"Content-Type": "application/json"})
            elif path.startswith("/org/name/resolve/") and (file := model / path.rpartition("/")[2]).is_file():
                self._file(file)
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound" if "/resolve/" in path else "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

        do_HEAD = do_GET  # noqa: N815

        def _file(self, file: Path) -> None:
            content = file.read_bytes()
            headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
            headers["Accept-Ranges"] = "bytes"
            wanted = self.headers.get("Range")
            if wanted:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                part = content[int(first) : int(last) + 1 if last else None]
                headers["Content-Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
                self._answer(part, headers, 206)
            else:
                self._answer(content, headers)

        def _answer(self, content: bytes, headers: dict[str, str], status: int = 200) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def tree(known: dict[str, Any]) -> list[dict[str, object]]:
    """The same files as the hub lists them one by one."""
    return [{**file, "type": "file", "path": file["rfilename"], "oid": "0" * 40} for file in known["siblings"]]


def about(model: Path) -> dict[str, Any]:
    """What the hub says of a model: its files, those of weights with their hashes."""
    files = []
    for file in sorted(model.iterdir()):
        entry: dict[str, object] = {"rfilename": file.name, "size": file.stat().st_size}
        if file.suffix == ".safetensors":
            checksum = hashlib.sha256(file.read_bytes()).hexdigest()
            entry["lfs"] = {"sha256": checksum, "oid": checksum, "size": file.stat().st_size, "pointerSize": 134}
        files.append(entry)
    return {"id": "org/name", "modelId": "org/name", "sha": COMMIT, "siblings": files, "tags": [], "private": False}
