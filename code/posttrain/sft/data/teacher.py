"""Answers of a larger model, asked for over any OpenAI-compatible endpoint.

Look at the licence of the model before you train on what it wrote.

Chapter: sft/your_model.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import (
    HTTPRedirectHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    build_opener,
)

from tqdm.auto import tqdm

from posttrain.core.errors import AssetError
from posttrain.core.storage.json_rows import read_json_rows
from posttrain.sft.chat.messages import Message, check_messages
from posttrain.sft.data.hub import ChatRow, MappedRows

_LOCAL = ("localhost", "127.0.0.1", "::1")
_AGAIN = frozenset({408, 409, 425, 429})  # and 500 and above
_THIS_PROMPT = frozenset({400, 413, 422})  # the endpoint may answer others
_REFUSED_AT_FIRST = 3  # after so many and not one answer, the prompts are not at fault
_LONGEST_WAIT = 60.0  # seconds
_LONGEST_ANSWER = 16 << 20  # bytes
_REFUSED = "refused by the endpoint"
_START = b'{"messages": [{"role": "user", "content": '  # of every row in the file


def ask_teacher(
    prompts: Sequence[str],
    *,
    base_url: str,
    model: str,
    out: str | Path,
    api_key_env: str = "OPENAI_API_KEY",
    system: str | None = None,
    temperature: float = 0.7,
    max_tokens: int = 512,
    options: Mapping[str, Any] | None = None,
    workers: int = 4,
    timeout: float = 60.0,
    retries: int = 5,
    wait: float = 1.0,
) -> MappedRows:
    """Ask a model each prompt once, and keep its answers in a file of rows.

    Each answer is written as soon as it is there. Called again with the same settings, after an
    interruption or with more prompts, it asks only what the file does not answer. Answers that
    were cut at ``max_tokens``, filtered or empty are counted and not written.

    The key is read from the environment and stands in no file and no message. Redirects are not
    followed: the key would go along.

    Args:
        prompts: Questions; one that stands there twice is asked once.
        base_url: Such as ``http://127.0.0.1:8000/v1``; other machines need ``https``.
        model: The name under which the endpoint serves it.
        out: A ``.jsonl`` file for the rows, which `load_rows` can read.
        api_key_env: Environment variable with the key; "" sends none.
        system: What to tell the teacher; it does not become a part of the rows.
        temperature: Of the sampling.
        max_tokens: Longest answer, in tokens.
        options: Further fields of the request, such as ``top_p``; None takes a field out.
        workers: Questions under way at once.
        timeout: Seconds to wait for an answer.
        retries: How often to ask again where the endpoint is busy or away.
        wait: Seconds before the first retry; each later one waits twice as long.

    Returns:
        The answered questions in the order of ``prompts``, and the others by reason.

    Raises:
        AssetError: If the key is not set, the file cannot be read or written, or the endpoint
            cannot be reached or refuses. What was answered before is in the file.
        ValueError: If the address, a prompt or a setting is no good, or the file holds other
            rows.

    Chapter: sft/your_model.
    """  # noqa: DOC502, DOC503
    if isinstance(prompts, str):
        raise ValueError("prompts is one text: give a list of texts")
    if min(workers, timeout, max_tokens) <= 0 or min(retries, wait, temperature) < 0:
        raise ValueError(
            f"workers is {workers}, timeout {timeout}, max_tokens {max_tokens}, retries "
            f"{retries}, wait {wait} and temperature {temperature}: give numbers above 0, or 0 "
            "for the last three"
        )
    settings = {"model": model, "temperature": temperature, "max_tokens": max_tokens}
    settings = _with_options(settings, options or {})
    questions = {p: _question(i, p, system, settings) for i, p in enumerate(prompts)}
    endpoint = _endpoint(base_url, api_key_env, timeout, retries, wait)
    rows = _read(Path(out))
    todo = [question for question in questions.values() if question.key not in rows]
    mapped, answered = MappedRows([], Counter()), 0
    with _appending(Path(out)) as file, tqdm(total=len(todo), desc="asking") as bar:
        for question, answer in _answers(endpoint, todo, workers):
            bar.update()
            if isinstance(answer, str):
                answered += 1
                rows[question.key] = question.row(answer)
                metadata = {"model": model, "request": question.key}
                line = {**rows[question.key], "metadata": metadata}
                file.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
                continue
            mapped.dropped[answer.reason] += 1
            mapped.first_dropped.setdefault(
                answer.reason, f"{question.prompt[:40]!r}: {answer.reason}{answer}"
            )
            if not answered and mapped.dropped[_REFUSED] == _REFUSED_AT_FIRST:
                raise AssetError(
                    f"{endpoint.url} refused the first {_REFUSED_AT_FIRST} prompts{answer}; "
                    "look at the settings"
                )
    mapped.rows.extend(rows[q.key] for q in questions.values() if q.key in rows)
    return mapped


def _with_options(settings: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    if refused := {"messages", "stream", "n"} & options.keys():
        raise ValueError(
            f"options sets {min(refused)!r}: one answer to each prompt is asked for, so leave "
            "it out"
        )
    merged = {**settings, **options}
    return {name: value for name, value in merged.items() if value is not None}


# --- one question ---


@dataclass(frozen=True)
class _Question:
    prompt: str
    body: bytes
    key: str  # of the whole request: with other settings it is another question

    def row(self, answer: str) -> ChatRow:
        asked: Message = {"role": "user", "content": self.prompt}
        return {"messages": [asked, {"role": "assistant", "content": answer}]}


def _question(
    index: int, prompt: str, system: str | None, settings: dict[str, Any]
) -> _Question:
    messages: list[Message] = [] if system is None else [{"role": "system", "content": system}]
    messages.append({"role": "user", "content": prompt})
    try:
        check_messages(messages)
    except ValueError as error:
        raise ValueError(f"prompt {index} cannot be asked: {error}") from None
    if not prompt.strip():
        raise ValueError(f"prompt {index} is empty: leave it out")
    body = json.dumps({**settings, "messages": messages}, sort_keys=True).encode()
    return _Question(prompt, body, hashlib.sha256(body).hexdigest()[:32])


class _NoAnswer(Exception):
    """One question has no answer that can be trained on; others may have.

    Args:
        reason: The kind, in a few words.
        details: What the endpoint said, as it is written behind the reason.
    """

    def __init__(self, reason: str, details: str = "") -> None:
        super().__init__(details)
        self.reason = reason


def _answers(
    endpoint: _Endpoint, questions: Sequence[_Question], workers: int
) -> Iterator[tuple[_Question, str | _NoAnswer]]:
    """Ask several at once; give each answer as it comes, and a fault after the last one."""
    pool = ThreadPoolExecutor(workers)
    fault: BaseException | None = None
    try:
        futures = {pool.submit(endpoint.ask, question.body): question for question in questions}
        for future in as_completed(futures):
            if future.cancelled():
                continue
            error = future.exception()
            if error is None or isinstance(error, _NoAnswer):
                yield futures[future], error or future.result()
            elif fault is None:  # what is under way may still be answered
                fault = error
                endpoint.stop.set()
                for other in futures:
                    other.cancel()
    finally:
        endpoint.stop.set()  # those that wait for a retry give up
        pool.shutdown(wait=False, cancel_futures=True)
    if fault is not None:
        raise fault


# --- the endpoint ---


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow none: urllib would send the key along."""


@dataclass(frozen=True)
class _Endpoint:
    url: str
    opener: OpenerDirector
    key: str
    key_from: str
    timeout: float
    retries: int
    wait: float
    stop: threading.Event

    def ask(self, body: bytes) -> str:
        """Post a request, again where that may help, and return the answer."""
        problem = ""
        for attempt in range(self.retries + 1):
            delay = self.wait * 2**attempt
            try:
                return _content(self._post(body), self.url)
            except HTTPError as error:
                with error:
                    problem = f"answered {error.code}{self._said(error)}"
                if error.code in _THIS_PROMPT:
                    raise _NoAnswer(_REFUSED, f": it {problem}") from None
                if error.code not in _AGAIN and error.code < 500:
                    remedy = self._remedy(error.code)
                    raise AssetError(f"{self.url} {problem}: {remedy}") from None
                asked_for = error.headers.get("Retry-After") or ""
                delay = float(asked_for) if asked_for.isdigit() else delay
            except (OSError, HTTPException) as error:  # away, too slow, or cut off
                reason = getattr(error, "reason", error)
                problem = f"could not be reached ({type(error).__name__}: {reason})"
            if attempt < self.retries:
                delay = min(delay, _LONGEST_WAIT) * random.uniform(0.75, 1)
                if self.stop.wait(delay):
                    break
        raise AssetError(
            f"{self.url} {problem}, {self.retries + 1} times: call ask_teacher again later, it "
            "goes on where it stopped"
        )

    def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = Request(self.url, body, headers)
        with self.opener.open(request, timeout=self.timeout) as response:
            data: bytes = response.read(_LONGEST_ANSWER)
        return data

    def _said(self, error: HTTPError) -> str:
        """Return what the endpoint says, but never where it may repeat the key."""
        if error.code in (401, 403):
            return ""
        try:
            text = error.read(2000).decode("utf-8", "replace")
        except (OSError, HTTPException):
            return ""
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            text = str(json.loads(text)["error"]["message"])
        text = " ".join(text.split())
        if self.key:
            text = text.replace(self.key, "…")
        return f" ({text[:200]})" if text else ""

    def _remedy(self, code: int) -> str:
        if code in (401, 403):
            return (
                f"look at the key in {self.key_from}" if self.key_from else "it asks for a key"
            )
        if 300 <= code < 400:
            return "it points elsewhere, so give the final address"
        return "look at base_url, which often ends in /v1, and at the name of the model"


def _endpoint(
    base_url: str, key_from: str, timeout: float, retries: int, wait: float
) -> _Endpoint:
    if any(letter in base_url for letter in "@?#"):
        raise ValueError(
            "base_url holds a password, a query or a fragment: give the address alone, and the "
            "key in the environment"
        )
    try:
        parts = urlsplit(base_url)
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number
        is_address = False
    if not is_address:
        raise ValueError(
            f"base_url is {base_url!r}: give an address such as http://127.0.0.1:8000/v1"
        )
    local = parts.hostname in _LOCAL
    if parts.scheme == "http" and not local:
        raise ValueError(
            f"base_url is {base_url!r}: http sends key and text in the clear, so give https, "
            "or an endpoint on this machine"
        )
    key = os.environ.get(key_from, "").strip() if key_from else ""
    if not all("!" <= letter <= "~" for letter in key):
        raise ValueError(f"{key_from} holds characters that no key has: set it again")
    if key_from and not key and not local:
        raise AssetError(
            f"{key_from} is not set: export it with the key of {parts.hostname}, or pass "
            "api_key_env='' if it needs none"
        )
    handlers = [_NoRedirects(), *([ProxyHandler({})] if local else [])]
    url = f"{base_url.rstrip('/')}/chat/completions"
    opener = build_opener(*handlers)
    return _Endpoint(url, opener, key, key_from, timeout, retries, wait, threading.Event())


def _content(data: bytes, url: str) -> str:
    try:
        choice = json.loads(data)["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason")
        content = message.get("content")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise AssetError(
            f"{url} answered with something else than a chat completion: look at base_url, "
            "which often ends in /v1"
        ) from None
    if reason == "length":
        raise _NoAnswer("cut at max_tokens")
    if reason == "content_filter":
        raise _NoAnswer("filtered")
    if not isinstance(content, str) or not content.strip():
        raise _NoAnswer("empty answer")
    try:
        content.encode()
    except UnicodeEncodeError:
        raise _NoAnswer("broken text") from None
    return content


# --- the file ---


def _read(out: Path) -> dict[str, ChatRow]:
    """Read the rows of an earlier call by the key of their question."""
    if out.suffix != ".jsonl":
        raise ValueError(f"out is {out}: give the name of a .jsonl file")
    if not out.exists() or (out.is_file() and out.stat().st_size == 0):
        return {}
    read = read_json_rows(out)
    data = out.read_bytes()
    half = data[data.rfind(b"\n") + 1 :]  # a call that was stopped while it wrote leaves one
    half_line = data.count(b"\n") + 1 if _START.startswith(half[: len(_START)]) else None
    rows: dict[str, ChatRow] = {}
    for row in read:
        if row.line == half_line and row.problem:
            continue
        try:
            key, messages = row.value["metadata"]["request"], row.value["messages"]
        except (TypeError, KeyError):
            raise ValueError(
                f"{out} holds rows that ask_teacher did not write, the first in line "
                f"{row.line}: give another file"
            ) from None
        if row.line != half_line:
            rows[key] = {"messages": messages}
    return rows


@contextlib.contextmanager
def _appending(out: Path) -> Iterator[IO[bytes]]:
    """Open a file to append rows, after its last whole line."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("ab+", buffering=0) as file:
            file.seek(0)
            data = file.read()
            file.truncate(data.rfind(b"\n") + 1)
            yield file
    except OSError as error:
        raise AssetError(
            f"{out} cannot be written ({error.strerror or error}): what was answered before is "
            "in it, so make room or mend the path and call ask_teacher again"
        ) from error
