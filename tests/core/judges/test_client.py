"""Judges behind a real HTTP server: what is asked and kept, each fault, the key nowhere."""

from __future__ import annotations

import contextlib
import json
import logging
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from posttrain.core.errors import AssetError
from posttrain.core.judges import endpoint
from posttrain.core.judges.client import EndpointJudge
from posttrain.core.judges.errors import (
    ConflictingVerdictsError,
    EndpointError,
    NoVerdictError,
    TruncatedVerdictError,
    VerdictError,
    VerdictSchemaError,
)
from posttrain.core.judges.prompts import judge_messages
from posttrain.core.judges.verdicts import judge_pairs
from posttrain.core.judges.win_rates import win_rate

BUSY = (429, {"Retry-After": "0"}, b"busy")


@pytest.fixture
def build(stub, tmp_path: Path) -> Callable[..., EndpointJudge]:
    def build(**settings: Any) -> EndpointJudge:
        api = settings.get("api", "openai")
        given = {
            "model": "big",
            "out": tmp_path / f"{api}.jsonl",
            "base_url": stub.url + ("/v1" if api == "openai" else ""),
            "wait": 0.001,
            "workers": 1,
        }
        return EndpointJudge(**given | settings)

    return build


# --- what is asked and kept ---


def test_openai(build, stub, key: str):
    found = build().judge("Why?", "x", "y")
    assert found.winner == "first"
    assert stub.paths == ["/v1/chat/completions"]
    assert stub.requests == [
        {
            "model": "big",
            "temperature": 0,
            "max_tokens": 1024,
            "messages": judge_messages("Why?", "x", "y"),
        }
    ]
    assert stub.headers[0]["Authorization"] == f"Bearer {key}"


def test_anthropic(build, stub, message, key: str):
    stub.reply = lambda body: message("B is ", "right. [[B]]")
    found = build(api="anthropic").judge("Why?", "x", "y")
    assert found.winner == "second" and found.reason == "B is right."
    assert stub.paths == ["/v1/messages"]
    system, user = judge_messages("Why?", "x", "y")
    assert stub.requests == [
        {"model": "big", "max_tokens": 1024, "system": system["content"], "messages": [user]}
    ]
    headers = {name.lower(): value for name, value in stub.headers[0].items()}
    assert headers["authorization"] == f"Bearer {key}"
    assert headers["anthropic-version"] == "2026-10-21"


@pytest.mark.parity
def test_anthropic_is_asked_as_its_own_library_asks(build, stub, message, monkeypatch):
    anthropic = pytest.importorskip("anthropic")
    monkeypatch.setenv("no_proxy", "127.0.0.1")  # the library takes the proxy otherwise
    stub.reply = lambda body: message("[[A]]")
    build(api="anthropic").judge("Why?", "x", "y")
    system, user = judge_messages("Why?", "x", "y")
    client = anthropic.Anthropic(base_url=stub.url, max_retries=0)
    client.messages.create(
        model="big", max_tokens=1024, system=system["content"], messages=[user]
    )
    assert stub.paths[0] == stub.paths[1] and stub.requests[0] == stub.requests[1]
    ours, theirs = ({k.lower(): v for k, v in sent.items()} for sent in stub.headers)
    for name in ("authorization", "anthropic-version", "content-type"):
        assert ours[name] == theirs[name]


@pytest.mark.parity
def test_openai_is_asked_as_its_own_library_asks(build, stub, monkeypatch):
    openai = pytest.importorskip("openai")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    stub.reply = lambda body: {
        "id": "1", "object": "chat.completion", "created": 1, "model": "big",
        "choices": [{"index": 0, "finish_reason": "stop",
                     "message": {"role": "assistant", "content": "[[A]]"}}],
    }  # fmt: skip
    build().judge("Why?", "x", "y")
    client = openai.OpenAI(base_url=f"{stub.url}/v1", max_retries=0)
    client.chat.completions.create(
        model="big",
        temperature=0,
        max_tokens=1024,
        messages=judge_messages("Why?", "x", "y"),
    )
    assert stub.paths[0] == stub.paths[1] and stub.requests[0] == stub.requests[1]
    ours, theirs = ({k.lower(): v for k, v in sent.items()} for sent in stub.headers)
    assert ours["authorization"] == theirs["authorization"]


def test_settings_reach_the_request(build, stub):
    build(
        instructions="Judge.",
        max_tokens=7,
        options={
            "temperature": None,
            "top_p": 0.5,
            "max_tokens": None,
            "max_completion_tokens": 9,
        },
    ).judge("Why?", "x", "y")
    sent = stub.requests[0]
    assert sent["messages"][0]["content"] == "Judge." and sent["top_p"] == 0.5
    assert "temperature" not in sent and "max_tokens" not in sent
    assert sent["max_completion_tokens"] == 9


def test_keys_from_the_environment(build, stub, monkeypatch):
    build(api_key_env="").judge("1", "x", "y")
    monkeypatch.setenv("MY_KEY", " other\n")
    build(api_key_env="MY_KEY").judge("2", "x", "y")
    monkeypatch.delenv("OPENAI_API_KEY")
    build().judge("3", "x", "y")  # a server on this machine may need none
    sent = [headers.get("Authorization") for headers in stub.headers]
    assert sent == [None, "Bearer other", None]


@pytest.mark.parametrize(
    ("api", "name", "host"),
    [
        ("openai", "OPENAI_API_KEY", "api.openai.com"),
        ("anthropic", "ANTHROPIC_API_KEY", "api.anthropic.com"),
    ],
)
def test_a_company_wants_a_key(build, monkeypatch, api: str, name: str, host: str):
    assert host in repr(build(api=api, base_url=None))
    monkeypatch.delenv(name)
    with pytest.raises(EndpointError, match=rf"^{name} is not set: export it with the key of"):
        build(api=api, base_url=None)


def test_answers_are_kept_and_read_again(build, stub, tmp_path: Path):
    judge = build()
    first = judge.judge("Why?", "x", "y")
    assert judge.judge("Why?", "x", "y") == first and len(stub.requests) == 1
    rows = [json.loads(line) for line in (tmp_path / "openai.jsonl").read_text().splitlines()]
    assert [(row["model"], row["text"]) for row in rows] == [("big", "[[A]]")]
    assert build().judge("Why?", "x", "y") == first and len(stub.requests) == 1
    build().judge("Why?", "y", "x")  # the other order is another question
    build(model="bigger").judge("Why?", "x", "y")
    build(instructions="Judge.").judge("Why?", "x", "y")
    assert len(stub.requests) == 4


def test_a_text_that_is_no_verdict_is_kept_too(build, stub, chat):
    stub.reply = lambda body: chat("Yes")
    for _ in range(2):
        with pytest.raises(NoVerdictError):
            build().judge("Why?", "x", "y")
    assert len(stub.requests) == 1


def test_many_pairs_are_asked_at_once_and_resumed(build, stub, chat):
    def reply(body: dict[str, Any]) -> Any:
        text = body["messages"][-1]["content"]
        return chat("[[A]]" if text.index("good") < text.index("bad") else "[[B]]")

    stub.reply = reply
    questions = [f"Question {i}?" for i in range(12)]
    rows = (questions, ["good"] * 12, ["bad"] * 12)
    judge_pairs(build(), *(row[:5] for row in rows))
    assert len(stub.requests) == 10
    outcomes = judge_pairs(build(workers=4), *rows)
    assert len(stub.requests) == 24 and win_rate(outcomes).value == 1


def test_an_interruption_keeps_what_was_answered(build, stub, chat, tmp_path: Path):
    rows = (["1", "2", "3"], ["x"] * 3, ["y"] * 3)
    usual, stub.reply = stub.reply, lambda body: (401, {}, b"")
    stub.in_turn(chat("[[A]]"), chat("[[A]]"))
    with pytest.raises(EndpointError, match="answered 401"):
        judge_pairs(build(), *rows)
    file = tmp_path / "openai.jsonl"
    assert len(file.read_text().splitlines()) == 2
    data = file.read_bytes()
    file.write_bytes(data[:-20])  # stopped while it wrote
    stub.reply, asked = usual, len(stub.requests)
    assert len(judge_pairs(build(), *rows)) == 3
    assert len(stub.requests) == asked + 5 and file.read_bytes().startswith(data)


@pytest.mark.parametrize("row", ['{"messages": []}', '{"request": 1, "text": "x"}', "x", "[3]"])
def test_a_file_of_other_rows_is_left_alone(build, stub, tmp_path: Path, row: str):
    for end in ("", "\n"):
        (tmp_path / "openai.jsonl").write_text(row + end)
        with pytest.raises(ValueError, match="holds rows that EndpointJudge did not write"):
            build()
        assert (tmp_path / "openai.jsonl").read_text() == row + end


def test_files_that_cannot_be_written(build, stub, tmp_path: Path):
    with pytest.raises(ValueError, match=r"give the name of a \.jsonl file"):
        build(out=tmp_path / "rows.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(AssetError, match=r"cannot be written .*ask the judge again"):
        build(out=tmp_path / "file" / "rows.jsonl").judge("Why?", "x", "y")
    assert not stub.requests


# --- faults ---


def test_busy_and_then_an_answer(build, stub):
    stub.in_turn(BUSY, (503, {}, b""))
    assert build().judge("Why?", "x", "y").winner == "first"
    assert len(stub.requests) == 3


@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_an_endpoint_that_fails_for_ever(build, stub, key: str, api: str):
    stub.reply = lambda body: (500, {}, {"error": {"message": f"down, {key}"}})
    with pytest.raises(EndpointError) as caught:
        build(api=api, retries=2).judge("Why?", "x", "y")
    path = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}[api]
    assert str(caught.value) == (
        f"{stub.url}{path} answered 500 (down, …), 3 times: ask the judge again later, it goes "
        "on where it stopped"
    )
    assert len(stub.requests) == 3


@pytest.mark.parametrize("workers", [1, 3])
def test_a_failing_endpoint_ends_a_run_of_many(build, stub, workers: int):
    stub.reply = lambda body: (500, {}, b"")
    with pytest.raises(EndpointError, match="answered 500, 2 times"):
        judge_pairs(build(retries=1, workers=workers), ["q"] * 40, [*"abcd"] * 10, ["x"] * 40)
    assert len(stub.requests) <= 2 * 2 * workers


def test_an_endpoint_that_is_too_slow(build, stub):
    stub.reply = lambda body: threading.Event().wait(0.5)
    with pytest.raises(
        EndpointError, match=r"could not be reached \(TimeoutError: timed out\)"
    ):
        build(timeout=0.05, retries=1).judge("Why?", "x", "y")


def test_an_endpoint_that_is_away(build):
    with pytest.raises(EndpointError, match=r"could not be reached \(URLError: .*refused"):
        build(base_url="http://127.0.0.1:9/v1", retries=1).judge("Why?", "x", "y")


def test_an_answer_that_is_cut_on_the_way_is_asked_again(build, stub, chat):
    cut = json.dumps(chat("[[B]]")).encode()[:20]
    stub.in_turn((200, {"Content-Length": "99"}, cut))
    assert build(timeout=1).judge("Why?", "x", "y").winner == "first"
    assert len(stub.requests) == 2


@pytest.mark.parametrize(
    ("api", "content"),
    [
        ("openai", b'{"choices": [{"message": {"content": "[[A]]"'),
        ("openai", b""),
        ("openai", b"<html>[[A]]</html>"),
        ("openai", {"choices": []}),
        ("openai", {"choices": [{"text": "[[A]]"}]}),
        ("openai", {"content": [{"type": "text", "text": "[[A]]"}], "stop_reason": "end_turn"}),
        ("anthropic", b'{"content": [{"type": "text", "text": "[[A]]"'),
        ("anthropic", {"content": "[[A]]", "stop_reason": "end_turn"}),
        ("anthropic", {"content": [{"type": "text"}], "stop_reason": "end_turn"}),
        ("anthropic", {"content": [{"type": "text", "text": "[[A]]"}]}),
        ("anthropic", {"choices": [{"message": {"content": "[[A]]"}}]}),
        ("anthropic", []),
    ],
)
def test_what_is_no_answer_of_the_interface(build, stub, api: str, content: Any):
    stub.reply = lambda body: content
    with pytest.raises(EndpointError, match="answered with something else than a"):
        build(api=api).judge("Why?", "x", "y")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{"winner": "fir', TruncatedVerdictError),
        ('{"winner": 3}', VerdictSchemaError),
        ('{"verdict": "A"}', VerdictSchemaError),
        ("[[A]] or rather [[B]]", ConflictingVerdictsError),
        ("Yes, A.", NoVerdictError),
    ],
)
@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_texts_that_are_no_verdict(build, stub, chat, message, api, text: str, error):
    stub.reply = lambda body: chat(text) if api == "openai" else message(text)
    with pytest.raises(error):
        build(api=api).judge("Why?", "x", "y")


@pytest.mark.parametrize(
    ("api", "reason", "error"),
    [
        ("openai", "length", TruncatedVerdictError),
        ("openai", "content_filter", NoVerdictError),
        ("anthropic", "max_tokens", TruncatedVerdictError),
        ("anthropic", "model_context_window_exceeded", TruncatedVerdictError),
        ("anthropic", "refusal", NoVerdictError),
    ],
)
def test_a_cut_or_filtered_answer_is_no_verdict(build, stub, chat, message, api, reason, error):
    """Even if it holds one: what follows might have taken it back."""
    give = chat if api == "openai" else message
    stub.reply = lambda body: give("[[A]]", reason=reason)
    with pytest.raises(error, match=r"^big gave no verdict"):
        build(api=api).judge("Why?", "x", "y")
    stub.reply = lambda body: give("[[A]]")
    assert build(api=api).judge("Why?", "x", "y").winner == "first"  # it is asked again


@pytest.mark.parametrize("text", [None, "", " \n", "\ud83d", [{"type": "text", "text": "x"}]])
def test_an_empty_answer_is_no_verdict(build, stub, chat, text: Any):
    stub.reply = lambda body: chat(text)
    with pytest.raises(NoVerdictError, match="gave no verdict"):
        build().judge("Why?", "x", "y")


def test_a_refused_question_is_counted_and_not_dropped(build, stub, chat):
    def reply(body: dict[str, Any]) -> Any:
        too_long = "long" in body["messages"][-1]["content"]
        return (400, {}, {"error": {"message": "too long"}}) if too_long else chat("[[C]]")

    stub.reply = reply
    outcomes = judge_pairs(build(), ["1", "2"], ["x", "long"], ["y", "z"])
    assert "refused by the endpoint: it answered 400 (too long)" in outcomes[1].problem
    found = win_rate(outcomes)
    assert found.n == 2 and found.unread == 1
    assert len(stub.requests) == 4  # each question once


def test_an_endpoint_that_refuses_everything_gives_no_rate(build, stub):
    stub.reply = lambda body: (400, {}, {"error": {"message": "no such field"}})
    with pytest.raises(EndpointError, match="refused the first 3 prompts: it answered 400"):
        judge_pairs(build(), ["q"] * 9, [*"abcdefghi"], ["x"] * 9)
    assert len(stub.requests) < 9


# --- the key ---


@pytest.mark.parametrize("status", [301, 307, 400, 401, 403, 404, 418, 429, 500])
@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_the_key_never_appears(build, stub, key, api, status, caplog, capfd, tmp_path):
    """Though the endpoint repeats it in headers, in its message and in what it answers."""
    caplog.set_level(logging.DEBUG)
    headers = {"X-Echo": key, "Location": f"{stub.url}/{key[:4]}"}
    stub.reply = lambda body: (status, headers, {"error": {"message": f"with {key} no"}})
    judge = build(api=api, retries=1)
    with pytest.raises((EndpointError, VerdictError)) as caught:
        judge.judge("Why?", "x", "y")
    texts = [str(caught.value), repr(caught.value), repr(judge), str(judge), caplog.text]
    texts += [repr(judge._endpoint), *capfd.readouterr()]
    texts += [path.read_text() for path in tmp_path.glob("*.jsonl")]
    error: BaseException | None = caught.value
    while error is not None:
        texts.append(repr(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert not [text for text in texts if key in text or "planted" in text]


def test_errors_pass_between_processes(build, stub):
    stub.reply = lambda body: (404, {}, b"")
    with pytest.raises(EndpointError) as caught:
        build().judge("Why?", "x", "y")
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is EndpointError and str(again) == str(caught.value)


# --- what is refused before anything is asked ---


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"api": "other"}, "api is 'other': give 'openai' or 'anthropic'"),
        ({"base_url": "http://example.org/v1"}, "http sends key and text in the clear"),
        ({"base_url": "file:///x"}, "give an address such as"),
        ({"base_url": "https://u:p@x.org"}, "base_url holds a password"),
        ({"workers": 0}, "workers is 0, timeout 60.0"),
        ({"timeout": 0}, "timeout 0"),
        ({"retries": -1}, "retries -1"),
        ({"options": {"n": 2}}, "options sets 'n'"),
        ({"options": {"system": "x"}}, "options sets 'system'"),
    ],
)
def test_settings_that_are_refused(build, settings: dict, problem: str):
    with pytest.raises(ValueError, match=problem):
        build(**settings)


def test_waiting_is_what_the_endpoint_asks_for_and_never_long(build, stub, monkeypatch):
    waited: list[float] = []
    real = threading.Event.wait

    def wait(self: threading.Event, timeout: float | None = None) -> bool:
        if timeout is None:
            return real(self)
        waited.append(timeout)
        return False

    stub.in_turn(
        (429, {"Retry-After": "7"}, b""),
        (503, {"Retry-After": "90000"}, b""),
        (429, {"Retry-After": "Wed, 21 Oct 2065 07:28:00 GMT"}, b""),
        (429, {"Retry-After": "soon"}, b""),
    )
    monkeypatch.setattr(endpoint.random, "uniform", lambda a, b: b)
    monkeypatch.setattr(threading.Event, "wait", wait)
    judge = build(wait=1)
    with contextlib.suppress(VerdictError):
        judge.judge("Why?", "x", "y")
    assert waited == [7, 60, 60, 8]
