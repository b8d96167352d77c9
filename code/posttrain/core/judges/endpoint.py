"""A model behind an address: how it is asked, how often again, and what its key never reaches.

Two interfaces are known: OpenAI's chat completions, which most servers speak, and Anthropic's
messages.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.client import HTTPException, IncompleteRead
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import (
    HTTPRedirectHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    build_opener,
)

from posttrain.core.judges.errors import EndpointError

REFUSED = "refused by the endpoint"
"""The reason of a request that the endpoint does not take."""

CUT = "cut at max_tokens"
"""The reason of an answer that ends in the middle."""

_LOCAL = ("localhost", "127.0.0.1", "::1")
_AGAIN = frozenset({408, 409, 425, 429})  # and 500 and above
_THIS_PROMPT = frozenset({400, 413, 422})  # the endpoint may answer others
_REFUSED_AT_FIRST = 3  # after so many and not one answer, the prompts are not at fault
_LONGEST_WAIT = 60.0  # seconds
_LONGEST_ANSWER = 16 << 20  # bytes


class NoAnswer(Exception):
    """One request has no answer that can be used; others may have.

    Args:
        reason: The kind, in a few words.
        details: What the endpoint said, as it is written behind the reason.
    """

    def __init__(self, reason: str, details: str = "") -> None:
        super().__init__(details)
        self.reason = reason


@dataclass(frozen=True)
class ChatApi:
    """An interface for conversations over HTTP.

    Attributes:
        path: What follows the base address.
        headers: Sent with each request, beside the key.
        read: Gives the text of an answer, as `openai_text` does.
        hint: What to look at where an address gives something else.
        base_url: The company's own address.
        key_env: Environment variable in which the company's key usually stands.
    """

    path: str
    headers: Mapping[str, str]
    read: Callable[[bytes, str], str]
    hint: str
    base_url: str
    key_env: str


@dataclass(frozen=True)
class Endpoint:
    """An address that can be asked; `open_endpoint` makes one.

    Attributes:
        url: The whole address.
        api: Its interface.
        key_from: Environment variable of the key; "" if it has none.
        timeout: Seconds to wait for an answer.
        retries: How often to ask again where the endpoint is busy or away.
        wait: Seconds before the first retry; each later one waits twice as long.
        again: What to do once it has failed, for the error's sentence.
        key: The key; it stands in no text that this class makes.
        opener: Sends the requests.
    """

    url: str
    api: ChatApi
    key_from: str
    timeout: float
    retries: int
    wait: float
    again: str
    key: str = field(repr=False)
    opener: OpenerDirector = field(repr=False)

    def ask(self, body: bytes, stop: threading.Event) -> str:
        """Send a request, and send it again while the endpoint is busy or away.

        The waits double, with a quarter of them drawn by chance, or are what ``Retry-After``
        asks for; none is longer than a minute.

        Args:
            body: The request, as JSON.
            stop: Ends the waiting for a retry once it is set.

        Returns:
            The text of the answer.

        Raises:
            NoAnswer: If this request is refused, or its answer is cut, filtered or empty.
            EndpointError: If the endpoint cannot be reached, refuses, or is none of this
                interface.
        """  # noqa: DOC502
        problem = ""
        for attempt in range(self.retries + 1):
            delay = self.wait * 2**attempt
            try:
                return self.api.read(self._post(body), self.url)
            except HTTPError as error:
                with error:
                    problem = f"answered {error.code}{self._said(error)}"
                if error.code in _THIS_PROMPT:
                    raise NoAnswer(REFUSED, f": it {problem}") from None
                if error.code not in _AGAIN and error.code < 500:
                    remedy = self._remedy(error.code)
                    raise EndpointError(f"{self.url} {problem}: {remedy}") from None
                asked_for = retry_after(error.headers.get("Retry-After"))
                delay = delay if asked_for is None else asked_for
            except (OSError, HTTPException) as error:  # away, too slow, or cut off
                reason = getattr(error, "reason", error)
                problem = f"could not be reached ({type(error).__name__}: {reason})"
            if attempt < self.retries:
                delay = min(delay, _LONGEST_WAIT) * random.uniform(0.75, 1)
                if stop.wait(delay):
                    break
        raise EndpointError(f"{self.url} {problem}, {self.retries + 1} times: {self.again}")

    def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json", **self.api.headers}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = Request(self.url, body, headers)
        with self.opener.open(request, timeout=self.timeout) as response:
            data: bytes = response.read(_LONGEST_ANSWER)
            if response.length:  # the connection ended before the answer did
                raise IncompleteRead(data, response.length)
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
        return f"look at {self.api.hint}, and at the name of the model"


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow none: urllib would send the key along."""


def open_endpoint(
    base_url: str,
    api: ChatApi,
    *,
    api_key_env: str,
    timeout: float,
    retries: int,
    wait: float,
    again: str,
) -> Endpoint:
    """Check an address and take its key out of the environment. Nothing is sent.

    Args:
        base_url: Such as ``http://127.0.0.1:8000/v1``; other machines need ``https``.
        api: The interface behind it.
        api_key_env: Environment variable with the key; "" sends none.
        timeout: Seconds to wait for an answer.
        retries: How often to ask again where the endpoint is busy or away.
        wait: Seconds before the first retry.
        again: What to do once all retries have failed, for the error's sentence.

    Returns:
        The endpoint.

    Raises:
        EndpointError: If the key is not set, and the address is that of another machine.
        ValueError: If the address or the key cannot be one.

    Chapter: dpo/preference_data.
    """
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
    key = os.environ.get(api_key_env, "").strip() if api_key_env else ""
    if not all("!" <= letter <= "~" for letter in key):
        raise ValueError(f"{api_key_env} holds characters that no key has: set it again")
    if api_key_env and not key and not local:
        raise EndpointError(
            f"{api_key_env} is not set: export it with the key of {parts.hostname}, or pass "
            "api_key_env='' if it needs none"
        )
    handlers = [_NoRedirects(), *([ProxyHandler({})] if local else [])]
    url = f"{base_url.rstrip('/')}{api.path}"
    opener = build_opener(*handlers)
    return Endpoint(url, api, api_key_env, timeout, retries, wait, again, key, opener)


def answers(
    endpoint: Endpoint, bodies: Mapping[str, bytes], workers: int
) -> Iterator[tuple[str, str | NoAnswer]]:
    """Send several requests at once; give each answer as it comes, and a fault after the last.

    Args:
        endpoint: Where to ask.
        bodies: The requests, by a key of the caller's.
        workers: Requests under way at once.

    Yields:
        The key of a request, with its answer or the reason why it has none.

    Raises:
        EndpointError: If the endpoint fails, or refuses the first requests and answers none.

    Chapter: dpo/preference_data.
    """  # noqa: DOC502, DOC503
    pool, stop = ThreadPoolExecutor(workers), threading.Event()
    fault: BaseException | None = None
    answered = refused = 0
    try:
        futures = {pool.submit(endpoint.ask, body, stop): key for key, body in bodies.items()}
        for future in as_completed(futures):
            if future.cancelled():
                continue
            error = future.exception()
            if error is None:
                answered += 1
                yield futures[future], future.result()
            elif isinstance(error, NoAnswer):
                refused += error.reason == REFUSED
                yield futures[future], error
                if not answered and refused == _REFUSED_AT_FIRST:
                    raise EndpointError(
                        f"{endpoint.url} refused the first {refused} prompts{error}; look at "
                        "the settings"
                    )
            elif fault is None:  # what is under way may still be answered
                fault = error
                stop.set()
                for other in futures:
                    other.cancel()
    finally:
        stop.set()  # those that wait for a retry give up
        pool.shutdown(wait=False, cancel_futures=True)
    if fault is not None:
        raise fault


def retry_after(header: str | None) -> float | None:
    """Read the header ``Retry-After``: seconds, or a date (RFC 9110, section 10.2.3).

    Args:
        header: Its value; None where the answer has none.

    Returns:
        Seconds to wait, 0 for a date that has passed; None where the header says nothing.

    Chapter: dpo/preference_data.
    """
    text = (header or "").strip()
    if text.replace(".", "", 1).isdecimal() and text.isascii():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


# --- the two interfaces ---


def openai_text(data: bytes, url: str) -> str:
    """Read an answer of OpenAI's chat completions.

    Args:
        data: What the endpoint sent.
        url: Its address, for errors.

    Returns:
        The text.

    Raises:
        NoAnswer: If the answer is cut, filtered, empty or no text.
        EndpointError: If it is no chat completion.

    Chapter: dpo/preference_data.
    """  # noqa: DOC502, DOC503
    try:
        choice = json.loads(data)["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason")
        content = message.get("content")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise EndpointError(
            f"{url} answered with something else than a chat completion: look at {OPENAI.hint}"
        ) from None
    if reason == "length":
        raise NoAnswer(CUT)
    if reason == "content_filter":
        raise NoAnswer("filtered")
    return _checked(content)


def anthropic_text(data: bytes, url: str) -> str:
    """Read an answer of Anthropic's messages: its text blocks, without the model's thoughts.

    Args:
        data: What the endpoint sent.
        url: Its address, for errors.

    Returns:
        The text.

    Raises:
        NoAnswer: If the answer is cut, filtered, empty or no text.
        EndpointError: If it is no message.

    Chapter: dpo/preference_data.
    """  # noqa: DOC502, DOC503
    try:
        message = json.loads(data)
        reason = message["stop_reason"]
        texts = [block["text"] for block in message["content"] if block["type"] == "text"]
        content = "".join(texts)
    except (ValueError, LookupError, TypeError, RecursionError):
        raise EndpointError(
            f"{url} answered with something else than a message: look at {ANTHROPIC.hint}"
        ) from None
    if reason in ("max_tokens", "model_context_window_exceeded"):
        raise NoAnswer(CUT)
    if reason == "refusal":
        raise NoAnswer("filtered")
    return _checked(content)


def _checked(content: Any) -> str:
    if not isinstance(content, str) or not content.strip():
        raise NoAnswer("empty answer")
    try:
        content.encode()
    except UnicodeEncodeError:
        raise NoAnswer("broken text") from None
    return content


OPENAI = ChatApi(
    path="/chat/completions",
    headers={},
    read=openai_text,
    hint="base_url, which often ends in /v1",
    base_url="https://api.openai.com/v1",
    key_env="OPENAI_API_KEY",
)
"""OpenAI's chat completions; vLLM, llama.cpp, Ollama and most hosts have them too."""

ANTHROPIC = ChatApi(
    path="/v1/messages",
    headers={"anthropic-version": "2026-10-21"},
    read=anthropic_text,
    hint="base_url, which ends before /v1",
    base_url="https://api.anthropic.com",
    key_env="ANTHROPIC_API_KEY",
)
"""Anthropic's messages, in the version that its library 2.12.0 sends."""
