"""An endpoint on this machine that answers as a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

KEY = "sk-planted-secret"


class Stub:
    """A real HTTP server; `reply` gives content, or status, headers and content."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.reply: Callable[[dict[str, Any]], Any] = lambda body: chat("[[A]]")
        stub, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    stub.requests.append(body)
                    stub.headers.append(dict(self.headers))
                    stub.paths.append(self.path)
                reply = stub.reply(body)
                status, headers, content = (
                    reply if isinstance(reply, tuple) else (200, {}, reply)
                )
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(data))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def in_turn(self, *replies: Any) -> None:
        """Answer with these, one after another, and then as before."""
        left, usual = list(replies), self.reply
        self.reply = lambda body: left.pop(0) if left else usual(body)


def chat(text: Any, reason: str = "stop") -> dict[str, Any]:
    """An answer of OpenAI's interface."""
    return {"choices": [{"message": {"content": text}, "finish_reason": reason}]}


def message(*texts: str, reason: str = "end_turn") -> dict[str, Any]:
    """An answer of Anthropic's interface, after the model's thoughts."""
    thoughts = {"type": "thinking", "thinking": "[[B]]?", "signature": "x"}
    blocks = [{"type": "text", "text": text} for text in texts]
    return {"type": "message", "content": [thoughts, *blocks], "stop_reason": reason}


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, KEY)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):  # not to be used on this machine
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    found = Stub()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture(name="chat")
def _chat() -> Callable[..., dict[str, Any]]:
    return chat


@pytest.fixture(name="message")
def _message() -> Callable[..., dict[str, Any]]:
    return message


@pytest.fixture
def key() -> str:
    """The key that stands in the environment, and nowhere else."""
    return KEY
