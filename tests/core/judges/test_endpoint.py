"""Single parts of the endpoint; what it does over HTTP is tested with the client."""

from __future__ import annotations

import json
import time
from email.utils import formatdate

import pytest

from posttrain.core.judges.endpoint import (
    ANTHROPIC,
    OPENAI,
    NoAnswer,
    answers,
    anthropic_text,
    open_endpoint,
    openai_text,
    retry_after,
)
from posttrain.core.judges.errors import EndpointError


def opened(stub, **settings):
    given = {
        "timeout": 5.0,
        "retries": 0,
        "wait": 0.001,
        "again": "ask again",
        "api_key_env": "",
    }
    return open_endpoint(stub.url, OPENAI, **given | settings)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0), ("12", 12), (" 1.5 ", 1.5), (None, None), ("", None), ("soon", None),
        ("-3", None), ("1e3", None), ("nan", None), ("inf", None), ("٣", None), (".", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
    ],
)  # fmt: skip
def test_retry_after(header: str | None, seconds: float | None):
    assert retry_after(header) == seconds


def test_retry_after_a_date():
    found = retry_after(formatdate(time.time() + 30, usegmt=True))
    assert found is not None and 20 < found <= 30


def test_each_answer_comes_with_its_key(stub, chat):
    stub.reply = lambda body: chat(body["say"]) if body["say"] else chat(None)
    bodies = {str(i): json.dumps({"say": "x" * i}).encode() for i in range(9)}
    found = dict(answers(opened(stub), bodies, workers=3))
    assert {key: found[key] for key in bodies if key != "0"} == {
        str(i): "x" * i for i in range(1, 9)
    }
    assert isinstance(found["0"], NoAnswer) and found["0"].reason == "empty answer"


def test_answers_that_came_before_a_fault_are_given(stub, chat):
    stub.reply = lambda body: (404, {}, b"")
    stub.in_turn(chat("a"), chat("b"))
    got = []
    with pytest.raises(EndpointError, match="answered 404: look at base_url, which often ends"):
        for _, answer in answers(opened(stub), {str(i): b"{}" for i in range(9)}, workers=1):
            got.append(answer)
    assert got == ["a", "b"] and len(stub.requests) < 9


def test_the_key_is_in_no_text_of_an_endpoint(stub, key: str):
    found = opened(stub, api_key_env="OPENAI_API_KEY")
    assert found.key == key and key not in repr(found) and key not in str(found)


@pytest.mark.parametrize("read", [openai_text, anthropic_text])
@pytest.mark.parametrize(
    "data", [b"", b"x", b"3", b"null", b"[[]]", b'{"choices": 3}', b"[" * 99_999, b"\xff"]
)
def test_what_is_no_answer(read, data: bytes):
    with pytest.raises(EndpointError, match=r"^u answered with something else than a"):
        read(data, "u")


def test_the_text_of_each_interface(chat, message):
    assert openai_text(json.dumps(chat("x")).encode(), "u") == "x"
    assert anthropic_text(json.dumps(message("x", "y")).encode(), "u") == "xy"
    with pytest.raises(NoAnswer):
        anthropic_text(json.dumps(message()).encode(), "u")  # thoughts alone
    assert (OPENAI.path, ANTHROPIC.path) == ("/chat/completions", "/v1/messages")


@pytest.mark.parametrize("name", ["HTTPS://API.x.org/v1/", "https://API.x.org/v1"])
def test_addresses(name: str, stub):
    found = open_endpoint(
        name, OPENAI, api_key_env="", timeout=1, retries=0, wait=0, again="ask again"
    )
    assert found.url.endswith("/v1/chat/completions")


def test_a_key_with_other_characters(stub, monkeypatch, key: str):
    monkeypatch.setenv("MY_KEY", f"{key}\nX-Other: 1")
    with pytest.raises(ValueError, match=r"^MY_KEY holds characters that no key has") as caught:
        opened(stub, api_key_env="MY_KEY")
    assert key not in str(caught.value)
