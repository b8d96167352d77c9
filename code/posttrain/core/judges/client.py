"""A model behind an endpoint as a judge, its answers kept in a file.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tqdm.auto import tqdm

from posttrain.core.judges.endpoint import (
    ANTHROPIC,
    CUT,
    OPENAI,
    NoAnswer,
    answers,
    open_endpoint,
)
from posttrain.core.judges.errors import NoVerdictError, TruncatedVerdictError
from posttrain.core.judges.kept import appending, kept_rows
from posttrain.core.judges.prompts import INSTRUCTIONS, judge_messages
from posttrain.core.judges.verdicts import Verdict, parse_verdict

Api = Literal["openai", "anthropic"]

_APIS = {"openai": OPENAI, "anthropic": ANTHROPIC}
_START = b'{"request": "'  # of every row in the file
_NOT_OPTIONS = {"messages", "system", "model", "stream", "n"}
_AGAIN = "ask the judge again later, it goes on where it stopped"


class EndpointJudge:
    """A judge behind an OpenAI-compatible endpoint, or behind Anthropic's.

    Each answer is written to the file as soon as it is there, as the model gave it. Asked again
    with the same model, settings and answers, the judge reads it from there: a rate can be
    computed again without the endpoint, and an interrupted run goes on. One file belongs to one
    endpoint.

    The key is read from the environment and stands in no file, no message and no text of this
    object. Redirects are not followed: the key would go along.

    Args:
        model: The name under which the endpoint serves it.
        out: A ``.jsonl`` file for the answers.
        api: "openai" for chat completions, which most servers have, or "anthropic".
        base_url: Such as ``http://127.0.0.1:8000/v1``; None takes the company's own. Other
            machines need ``https``. Anthropic's ends before ``/v1``.
        api_key_env: Environment variable with the key; None takes ``OPENAI_API_KEY`` or
            ``ANTHROPIC_API_KEY``, "" sends none.
        instructions: What to judge by, and what to write; see `parse_verdict` for the forms.
        max_tokens: Longest answer, thoughts included, in tokens.
        options: Further fields of the request, such as ``temperature``; None takes a field out.
            OpenAI's interface gets a temperature of 0 where none is given. Anthropic's takes
            none, so the same question may get another verdict there: the file holds the one
            that counted.
        workers: Questions under way at once, in `ask_ahead`.
        timeout: Seconds to wait for an answer.
        retries: How often to ask again where the endpoint is busy or away.
        wait: Seconds before the first retry; each later one waits twice as long.

    Raises:
        ValueError: If the interface, the address or a setting is no good, or the file holds
            other rows. A key that is not set, or a file that cannot be read, is an AssetError.
    """

    def __init__(
        self,
        model: str,
        out: str | Path,
        *,
        api: Api = "openai",
        base_url: str | None = None,
        api_key_env: str | None = None,
        instructions: str = INSTRUCTIONS,
        max_tokens: int = 1024,
        options: Mapping[str, Any] | None = None,
        workers: int = 4,
        timeout: float = 60.0,
        retries: int = 5,
        wait: float = 1.0,
    ) -> None:
        if api not in _APIS:
            raise ValueError(f"api is {api!r}: give 'openai' or 'anthropic'")
        if min(workers, timeout, max_tokens) <= 0 or min(retries, wait) < 0:
            raise ValueError(
                f"workers is {workers}, timeout {timeout}, max_tokens {max_tokens}, retries "
                f"{retries} and wait {wait}: give numbers above 0, or 0 for the last two"
            )
        interface = _APIS[api]
        self.model, self.api, self.instructions = model, api, instructions
        self.workers, self.out = workers, Path(out)
        self._settings = _settings(api, model, max_tokens, options or {})
        self._endpoint = open_endpoint(
            interface.base_url if base_url is None else base_url,
            interface,
            api_key_env=interface.key_env if api_key_env is None else api_key_env,
            timeout=timeout,
            retries=retries,
            wait=wait,
            again=_AGAIN,
        )
        rows = kept_rows(self.out, _START, _is_own, "EndpointJudge")
        self._texts: dict[str, str] = {row["request"]: row["text"] for row in rows}
        self._without: dict[str, NoAnswer] = {}

    def __repr__(self) -> str:
        return f"EndpointJudge({self.model!r} at {self._endpoint.url}, kept in {self.out})"

    def judge(self, question: str, first: str, second: str) -> Verdict:
        """Say which answer is better, from the file or by asking.

        Args:
            question: What was asked.
            first: The answer shown first.
            second: The answer shown second.

        Returns:
            The verdict.

        Raises:
            VerdictError: If the model's text is not exactly one verdict, or there is none, such
                as one that the endpoint refuses or cuts.
            AssetError: If the endpoint cannot be reached or refuses all, or the file cannot be
                written.
        """  # noqa: DOC502, DOC503
        body = self._body(question, first, second)
        key = _key(body)
        if key not in self._texts and key not in self._without:
            self._ask({key: body})
        if key in self._texts:
            return parse_verdict(self._texts[key])
        missing = self._without[key]
        kind = TruncatedVerdictError if missing.reason == CUT else NoVerdictError
        raise kind(
            f"{self.model} gave no verdict ({missing.reason}{missing}): look at the answers "
            "shown, or allow it more tokens"
        )

    def ask_ahead(self, rows: Sequence[tuple[str, str, str]]) -> None:
        """Ask several questions at once, those that the file does not answer.

        Args:
            rows: Question, first and second answer of each.

        Raises:
            AssetError: If the endpoint cannot be reached or refuses all, or the file cannot be
                written. What was answered before is in the file.
        """  # noqa: DOC502
        bodies = {_key(body): body for body in (self._body(*row) for row in rows)}
        self._without.clear()  # what had no answer is asked once more
        self._ask({key: body for key, body in bodies.items() if key not in self._texts})

    def _body(self, question: str, first: str, second: str) -> bytes:
        system, user = judge_messages(question, first, second, self.instructions)
        fields: dict[str, Any] = dict(self._settings)
        if self.api == "anthropic":
            fields |= {"system": system["content"], "messages": [user]}
        else:
            fields |= {"messages": [system, user]}
        return json.dumps(fields, sort_keys=True).encode()

    def _ask(self, bodies: Mapping[str, bytes]) -> None:
        if not bodies:
            return
        quiet = len(bodies) == 1
        with (
            appending(self.out, "ask the judge again") as file,
            tqdm(total=len(bodies), desc="asking", disable=quiet) as bar,
        ):
            for key, answer in answers(self._endpoint, bodies, self.workers):
                bar.update()
                if isinstance(answer, NoAnswer):
                    self._without[key] = answer
                    continue
                row = {"request": key, "model": self.model, "text": answer}
                file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
                self._texts[key] = answer


def _settings(
    api: Api, model: str, max_tokens: int, options: Mapping[str, Any]
) -> dict[str, Any]:
    if refused := _NOT_OPTIONS & options.keys():
        raise ValueError(
            f"options sets {min(refused)!r}: the judge sets it or asks for one answer, so "
            "leave it out"
        )
    own: dict[str, Any] = {"model": model, "max_tokens": max_tokens}
    if api == "openai":
        own["temperature"] = 0
    merged = {**own, **options}
    return {name: value for name, value in merged.items() if value is not None}


def _key(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:32]


def _is_own(row: Any) -> bool:
    return isinstance(row["request"], str) and isinstance(row["text"], str)
