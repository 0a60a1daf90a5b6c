"""A W&B server on 127.0.0.1 that knows one project: enough of its GraphQL for wandb.Api().runs and histories."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def run_node(name: str, state: str, config: dict[str, Any], summary: dict[str, Any], rows: int = 0) -> dict[str, Any]:
    """A run as W&B's GraphQL gives it."""
    return {
        "__typename": "Run", "id": f"id-{name}", "name": name, "displayName": name, "projectId": "1", "state": state,
        "tags": [], "sweepName": None, "group": "", "jobType": None, "commit": None, "readOnly": False,
        "createdAt": "2026-01-01T00:00:00Z", "heartbeatAt": "2026-01-01T00:00:00Z", "description": None, "notes": None,
        "systemMetrics": "{}", "historyLineCount": rows, "user": {"name": "me", "username": "me"},
        "config": json.dumps({key: {"value": value} for key, value in config.items()}),
        "summaryMetrics": json.dumps(summary), "historyKeys": {"lastStep": rows - 1, "keys": {}},
    }  # fmt: skip


class WandbStub:
    """Serves `runs` (from `run_node`) and `histories` (run name → rows); `filters` holds the last filters asked for."""

    def __init__(self, runs: list[dict[str, Any]], histories: dict[str, list[dict[str, Any]]] | None = None) -> None:
        self.runs = runs
        self.histories = histories or {}
        self.filters: dict[str, Any] = {}
        self.asked: list[str] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        named = re.search(r"(?:query|mutation)\s+(\w+)", query)
        name = named.group(1) if named else ""
        self.asked.append(name)
        if name == "Viewer":
            viewer = {"id": "1", "entity": "me", "username": "me", "email": "", "flags": "{}", "teams": {"edges": []}}
            return {"viewer": viewer}
        if name == "GetDefaultEntity":
            return {"viewer": {"id": "1", "entity": "me"}}
        if "Runs" in name:
            self.filters = json.loads(variables.get("filters") or "{}")
            return {"project": self._page(variables)}
        if "History" in name or "run(" in query:
            return {"project": {"run": self._history(variables)}}
        return {}

    def _page(self, variables: dict[str, Any]) -> dict[str, Any]:
        edges = [{"node": node, "cursor": str(i)} for i, node in enumerate(self.runs)]
        page = {"endCursor": str(len(edges)), "hasNextPage": False}
        return {
            "internalId": "1",
            "runCount": len(edges),
            "readOnly": False,
            "runs": {"edges": edges, "pageInfo": page},
        }

    def _history(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = variables.get("run") or variables.get("name")
        node = next((node for node in self.runs if node["name"] == name), self.runs[0])
        rows = [json.dumps(row) for row in self.histories.get(node["name"], [])]
        low, high = int(variables.get("minStep") or 0), int(variables.get("maxStep") or len(rows))
        inside = [row for row in rows if low <= json.loads(row)["_step"] < high]
        return {**node, "history": inside, "sampledHistory": [inside], "parquetHistory": {"parquetUrls": []}}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                try:
                    asked = json.loads(body)
                    data = stub.answer(asked.get("query", ""), asked.get("variables") or {})
                except ValueError:
                    data = {}
                self._send({"data": data})

            def do_GET(self) -> None:
                self._send({})

            def _send(self, content: dict[str, Any]) -> None:
                body = json.dumps(content).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        return Handler
