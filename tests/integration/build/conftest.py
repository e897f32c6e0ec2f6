"""Small apps of every language that need no package from anywhere, and a builder over a state folder of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fairway.apps.spec import AppSpec
from fairway.run.builder import Builder

GO = """package main

import (
	"fmt"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "one") })
	http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil)
}
"""
PYTHON = """import http.server, os

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"one")

http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
PROCFILE = "web: python3 -c pass\nworker: ./work --port $PORT"
NODE = 'require("http").createServer((q, a) => a.end("one")).listen(process.env.PORT, process.env.HOST)\n'


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path]:
    return {
        "go": write(tmp_path / "go", {"go.mod": "module example.com/hello\n\ngo 1.21\n", "main.go": GO}),
        "python": write(tmp_path / "python", {"requirements.txt": "", "main.py": PYTHON}),
        "node": write(
            tmp_path / "node", {"package.json": '{"scripts": {"start": "node server.js"}}', "server.js": NODE}
        ),
        "command": write(tmp_path / "command", {"Procfile": PROCFILE, "work": ""}),
    }


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / ".fairway"


@pytest.fixture
def builder(state: Path) -> Builder:
    return Builder(state, step_timeout=100)


def spec(source: Path, name: str = "shop", **fields: object) -> AppSpec:
    return AppSpec(name=name, file=source / "entry.yaml", source=source, **fields)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    # Go's own cache stays where it is: compiling its library again would take half a minute.
    monkeypatch.setenv("GOCACHE", os.environ.get("GOCACHE") or str(Path.home() / ".cache" / "go-build"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
