"""A teacher over HTTP: what is asked, what is kept, and what a key never reaches."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from posttrain.core.errors import AssetError
from posttrain.core.judges import endpoint
from posttrain.sft.data import teacher as module
from posttrain.sft.data.own_rows import load_rows
from posttrain.sft.data.teacher import ask_teacher

KEY = "sk-planted-secret"


def completion(text: Any, **choice: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": text}, "finish_reason": "stop", **choice}]}


class Stub:
    """An endpoint on this machine that answers as a test says."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.reply: Callable[[dict[str, Any]], Any] = lambda body: completion(
            f"{body['messages'][-1]['content']} Yes."
        )
        stub, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    stub.requests.append({"path": self.path, **body})
                    stub.headers.append(dict(self.headers))
                reply = stub.reply(body)
                status, headers, content = (
                    reply if isinstance(reply, tuple) else (200, {}, reply)
                )
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def in_turn(self, *replies: Any) -> None:
        """Answer with these, one after another, and then as before."""
        left, usual = list(replies), self.reply
        self.reply = lambda body: left.pop(0) if left else usual(body)

    @property
    def asked(self) -> list[str]:
        return [request["messages"][-1]["content"] for request in self.requests]


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):  # not to be used on this machine
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    found = Stub()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def ask(stub: Stub, tmp_path: Path) -> Callable[..., Any]:
    def ask(*prompts: str, **options: Any):
        settings = {"base_url": stub.url, "model": "big", "out": tmp_path / "rows.jsonl"}
        return ask_teacher(prompts, **settings | {"wait": 0.001, "workers": 1} | options)

    return ask


def pairs(mapped: Any) -> list[tuple[str, str]]:
    return [tuple(m["content"] for m in row["messages"]) for row in mapped.rows]


# --- what is asked and kept ---


def test_prompts_are_asked_and_answers_kept(ask, stub: Stub, tmp_path: Path):
    found = ask("Why?\u2028", "é?", "Why?\u2028", system="Teach.", options={"top_p": 0.5})
    assert pairs(found) == [("Why?\u2028", "Why?\u2028 Yes."), ("é?", "é? Yes.")]
    assert not found.dropped
    assert stub.requests[0] == {
        "path": "/v1/chat/completions",
        "model": "big",
        "temperature": 0.7,
        "max_tokens": 512,
        "top_p": 0.5,
        "messages": [
            {"role": "system", "content": "Teach."},
            {"role": "user", "content": "Why?\u2028"},
        ],
    }
    assert len(stub.requests) == 2
    assert stub.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert stub.headers[0]["Content-Type"] == "application/json"
    loaded = load_rows(tmp_path / "rows.jsonl")
    assert loaded.rows == found.rows and loaded.ignored == ("metadata",)
    assert KEY not in (tmp_path / "rows.jsonl").read_text(encoding="utf-8")


def test_the_order_is_that_of_the_prompts(ask, stub: Stub):
    prompts = [f"Question {i}?" for i in range(30)]
    found = ask(*prompts, workers=6)
    assert [question for question, _ in pairs(found)] == prompts
    assert sorted(stub.asked) == sorted(prompts)


def test_no_key_is_sent_where_there_is_none(ask, stub: Stub, monkeypatch):
    ask("a", api_key_env="")
    monkeypatch.delenv("OPENAI_API_KEY")
    ask("b")
    monkeypatch.setenv("MY_KEY", " other\n")
    ask("c", api_key_env="MY_KEY")
    sent = [headers.get("Authorization") for headers in stub.headers]
    assert sent == [None, None, "Bearer other"]


def test_a_field_can_be_taken_out(ask, stub: Stub):
    ask("a", options={"max_tokens": None, "max_completion_tokens": 9})
    assert "max_tokens" not in stub.requests[0]
    assert stub.requests[0]["max_completion_tokens"] == 9
    for name in ("messages", "stream", "n"):
        with pytest.raises(ValueError, match=rf"^options sets '{name}': one answer to each"):
            ask("a", options={name: 2})


# --- going on ---


def test_only_what_is_not_answered_is_asked_again(ask, stub: Stub):
    ask("a", "b")
    found = ask("c", "b", "a")
    assert stub.asked == ["a", "b", "c"]
    assert pairs(found) == [("c", "c Yes."), ("b", "b Yes."), ("a", "a Yes.")]
    ask("a", temperature=0)
    ask("a", system="Teach.")
    ask("a", model="bigger")
    assert stub.asked[3:] == ["a"] * 3  # other settings make another question
    assert pairs(ask("b")) == [("b", "b Yes.")] and len(stub.asked) == 6


@pytest.mark.parametrize("cut", [1, 2, 30, 60])
def test_half_a_row_is_asked_again(ask, stub: Stub, tmp_path: Path, cut: int):
    whole = ask("a", "b").rows
    file = tmp_path / "rows.jsonl"
    data = file.read_bytes()
    file.write_bytes(data[:-cut])
    assert ask("a", "b").rows == whole and stub.asked == ["a", "b", "b"]
    assert file.read_bytes() == data
    file.write_bytes(data[: data.index(b"\n") - cut])
    assert ask("a", "b").rows == whole and file.read_bytes() == data


def test_what_was_answered_before_an_error_is_kept(ask, stub: Stub, tmp_path: Path):
    usual = stub.reply
    stub.reply = lambda body: (401, {}, {}) if stub.asked[-1] in "cde" else usual(body)
    with pytest.raises(AssetError, match="answered 401"):
        ask(*"abcde")
    assert len(load_rows(tmp_path / "rows.jsonl").rows) == 2
    stub.reply = usual
    assert [question for question, _ in pairs(ask(*"abcde"))] == [*"abcde"]
    assert stub.asked.count("a") == stub.asked.count("b") == 1


def test_what_is_under_way_when_one_fails_is_kept(ask, stub: Stub, tmp_path: Path):
    usual, both = stub.reply, threading.Barrier(2)

    def reply(body: dict[str, Any]) -> Any:
        slow = body["messages"][-1]["content"] == "slow"
        both.wait(5)
        threading.Event().wait(0.1 if slow else 0)
        return usual(body) if slow else (404, {}, b"")

    stub.reply = reply
    with pytest.raises(AssetError, match="answered 404"):
        ask("fast", "slow", workers=2)
    assert len(load_rows(tmp_path / "rows.jsonl").rows) == 1


def test_a_keyboard_interrupt_keeps_what_is_there(ask, stub: Stub, tmp_path: Path, monkeypatch):
    class Bar:
        def __init__(self, **_: Any) -> None:
            self.n = 0

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: Any) -> None:
            pass

        def update(self) -> None:
            self.n += 1
            if self.n == 3:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "tqdm", Bar)
        ask(*"abcdef")
    assert [q for q, _ in pairs(ask(*"ab"))] == ["a", "b"] and stub.asked.count("a") == 1
    assert len(load_rows(tmp_path / "rows.jsonl").rows) == 2


@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("row", ['{"prompt": "a", "completion": "b"}', '{"messages": []}', "x"])
def test_a_file_of_other_rows_is_left_alone(ask, stub, tmp_path: Path, end: str, row: str):
    file = tmp_path / "rows.jsonl"
    file.write_text(row + end)
    with pytest.raises(
        ValueError, match="holds rows that ask_teacher did not write, the first"
    ):
        ask("a")
    assert file.read_text() == row + end and not stub.requests


def test_files_that_cannot_be_written(ask, stub: Stub, tmp_path: Path):
    with pytest.raises(ValueError, match=r"rows\.json: give the name of a \.jsonl file"):
        ask("a", out=tmp_path / "rows.json")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(AssetError, match="is a folder"):
        ask("a", out=tmp_path / "folder.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(AssetError, match=r"rows\.jsonl cannot be written \("):
        ask("a", out=tmp_path / "file" / "rows.jsonl")
    assert not stub.requests  # nothing is asked whose answer could not be kept
    assert pairs(ask("a", out=tmp_path / "new" / "rows.jsonl")) == [("a", "a Yes.")]


# --- answers that are none ---


def test_answers_that_cannot_be_trained_on_are_counted(ask, stub: Stub, tmp_path: Path):
    stub.in_turn(
        completion("cut of", finish_reason="length"),
        completion("", finish_reason="content_filter"),
        completion(None),
        completion(" \n"),
        completion("\ud83d"),
        completion([{"type": "text", "text": "x"}]),
        (400, {}, {"error": {"message": f"bad prompt, {KEY}"}}),
    )
    found = ask(*"abcdefgh")
    assert pairs(found) == [("h", "h Yes.")]
    assert found.dropped == {
        "cut at max_tokens": 1,
        "filtered": 1,
        "empty answer": 3,
        "broken text": 1,
        "refused by the endpoint": 1,
    }
    assert found.first_dropped["cut at max_tokens"] == "'a': cut at max_tokens"
    assert found.first_dropped["refused by the endpoint"] == (
        "'g': refused by the endpoint: it answered 400 (bad prompt, …)"
    )
    assert len(load_rows(tmp_path / "rows.jsonl").rows) == 1
    assert pairs(ask("a")) == [("a", "a Yes.")]  # asked again


def test_an_endpoint_that_refuses_everything_is_not_asked_everything(ask, stub: Stub):
    stub.reply = lambda body: (400, {}, {"error": {"message": "no max_tokens"}})
    with pytest.raises(
        AssetError, match=r"refused the first 3 prompts: it answered 400 \(no max"
    ):
        ask(*"abcdefghij")
    assert len(stub.requests) < 8


# --- an endpoint that is busy, away, or another one ---


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 529])
def test_a_busy_endpoint_is_asked_again(ask, stub: Stub, status: int):
    busy = (status, {"Retry-After": "0"}, b"busy")
    stub.in_turn(busy, busy)
    assert pairs(ask("a")) == [("a", "a Yes.")] and stub.asked == ["a"] * 3


def test_retries_end(ask, stub: Stub):
    stub.reply = lambda body: (503, {}, {"error": {"message": f"down {KEY}"}})
    with pytest.raises(AssetError) as caught:
        ask("a", retries=2)
    assert str(caught.value) == (
        f"{stub.url}/chat/completions answered 503 (down …), 3 times: call ask_teacher again "
        "later, it goes on where it stopped"
    )
    assert len(stub.requests) == 3


@pytest.mark.parametrize(
    ("header", "waits"),
    [(None, [1, 2, 4, 8]), ("7", [7] * 4), ("900", [60] * 4), ("tomorrow", [1, 2, 4, 8])],
)
def test_waiting_doubles_or_is_what_the_endpoint_asks(
    ask, stub: Stub, monkeypatch, header: str | None, waits: list[float]
):
    waited: list[float] = []

    def wait(self: threading.Event, timeout: float | None = None) -> bool:
        if timeout is None:
            return real(self)
        waited.append(timeout)
        return False

    real = threading.Event.wait
    busy = (429, {"Retry-After": header} if header else {}, b"")
    stub.in_turn(*[busy] * 4)
    monkeypatch.setattr(endpoint.random, "uniform", lambda a, b: b)
    monkeypatch.setattr(endpoint.threading.Event, "wait", wait)
    ask("a", wait=1)
    assert waited == waits


def test_an_endpoint_that_is_away(ask, stub: Stub):
    with pytest.raises(
        AssetError, match=r"could not be reached \(URLError: .*refused.*\), 2 tim"
    ):
        ask("a", base_url="http://127.0.0.1:9/v1", retries=1)


def test_an_endpoint_that_is_too_slow(ask, stub: Stub):
    usual = stub.reply
    stub.reply = lambda body: threading.Event().wait(0.5) or usual(body)
    with pytest.raises(
        AssetError, match=r"could not be reached \(TimeoutError: timed out\), 1 t"
    ):
        ask("a", timeout=0.05, retries=0)


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused_is_not_shown(ask, stub: Stub, status: int):
    stub.reply = lambda body: (status, {}, {"error": {"message": f"wrong key {KEY[:9]}"}})
    with pytest.raises(AssetError) as caught:
        ask("a")
    assert f"answered {status}: look at the key in OPENAI_API_KEY" in str(caught.value)
    assert "planted" not in repr(caught.value) and "sk-" not in repr(caught.value)
    assert len(stub.requests) == 1


def test_a_redirect_is_not_followed(ask, stub: Stub):
    stub.reply = lambda body: (307, {"Location": f"{stub.url}/elsewhere"}, b"")
    with pytest.raises(
        AssetError, match="answered 307: it points elsewhere, so give the final"
    ):
        ask("a")
    assert len(stub.requests) == 1


def test_a_wrong_path_is_named(ask, stub: Stub):
    stub.reply = lambda body: (404, {}, {"detail": "Not Found"})
    with pytest.raises(AssetError, match=r"answered 404 \(.*Not Found.*\): look at base_url"):
        ask("a")


@pytest.mark.parametrize(
    "content", [b"<html>", b"", b"[]", {}, {"choices": []}, {"choices": [{"text": "x"}]}]
)
def test_what_is_no_completion_is_refused(ask, stub: Stub, content: Any):
    stub.reply = lambda body: content
    with pytest.raises(AssetError, match="answered with something else than a chat completion"):
        ask("a")


# --- what is refused before anything is asked ---


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/v1",
        "http://127.0.0.1.example.org/v1",
        "http://192.168.0.1/v1",
        "http://0.0.0.0:8000/v1",
    ],
)
def test_other_machines_need_https(ask, stub: Stub, url: str):
    with pytest.raises(ValueError, match="http sends key and text in the clear, so give https"):
        ask("a", base_url=url)


@pytest.mark.parametrize(
    "url",
    [
        "file:///x",
        "ftp://127.0.0.1",
        "127.0.0.1:80",
        "",
        "http://",
        "http://[::1",
        "http://h:x",
    ],
)
def test_what_is_no_address_is_refused(ask, stub: Stub, url: str):
    with pytest.raises(ValueError, match="give an address such as"):
        ask("a", base_url=url)


@pytest.mark.parametrize("url", [f"https://u:{KEY}@x.org", f"https://x.org?key={KEY}"])
def test_a_password_in_the_address_is_refused(ask, stub: Stub, url: str):
    with pytest.raises(ValueError, match=r"^base_url holds a password, a query or a") as caught:
        ask("a", base_url=url)
    assert KEY not in str(caught.value)


def test_a_key_that_cannot_be_one(ask, stub: Stub, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\nX-Other: 1")
    with pytest.raises(
        ValueError, match=r"^OPENAI_API_KEY holds characters that no key has"
    ) as e:
        ask("a")
    assert KEY not in str(e.value) and not stub.requests
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    with pytest.raises(
        AssetError, match=r"^OPENAI_API_KEY is not set: export it with the key of"
    ):
        ask("a", base_url="https://example.org/v1")


@pytest.mark.parametrize(
    ("prompts", "options", "problem"),
    [
        ("ab", {}, None),
        (["a", " "], {}, "^prompt 1 is empty: leave it out"),
        (["a", 5], {}, "^prompt 1 cannot be asked: message 0 .user. has content of type int"),
        (["\ud83d"], {}, "^prompt 0 cannot be asked: .*half of a surrogate pair"),
        (["a"], {"workers": 0}, "workers is 0, timeout 60.0, .*: give numbers above 0"),
        (["a"], {"retries": -1}, "retries -1"),
    ],
)
def test_prompts_and_settings_that_are_refused(
    ask, stub: Stub, prompts: Any, options: dict, problem: str | None
):
    if problem is None:
        with pytest.raises(ValueError, match=r"^prompts is one text: give a list of texts"):
            ask_teacher("ab", base_url=stub.url, model="big", out="x.jsonl")
        return
    with pytest.raises(ValueError, match=problem):
        ask(*prompts, **options)
    assert not stub.requests
