"""Answers of a larger model, asked for over any OpenAI-compatible endpoint.

Look at the licence of the model before you train on what it wrote.

Chapter: sft/your_model.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from posttrain.core.judges.endpoint import OPENAI, answers, open_endpoint
from posttrain.core.judges.kept import appending, kept_rows
from posttrain.sft.chat.messages import Message, check_messages
from posttrain.sft.data.hub import ChatRow, MappedRows

_START = b'{"messages": [{"role": "user", "content": '  # of every row in the file
_AGAIN = "call ask_teacher again"


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
    endpoint = open_endpoint(
        base_url,
        OPENAI,
        api_key_env=api_key_env,
        timeout=timeout,
        retries=retries,
        wait=wait,
        again=f"{_AGAIN} later, it goes on where it stopped",
    )
    kept = kept_rows(Path(out), _START, _is_own, "ask_teacher")
    rows: dict[str, ChatRow] = {
        row["metadata"]["request"]: {"messages": row["messages"]} for row in kept
    }
    todo = {q.key: q for q in questions.values() if q.key not in rows}
    bodies = {key: question.body for key, question in todo.items()}
    mapped = MappedRows([], Counter())
    with appending(Path(out), _AGAIN) as file, tqdm(total=len(todo), desc="asking") as bar:
        for key, answer in answers(endpoint, bodies, workers):
            bar.update()
            if isinstance(answer, str):
                rows[key] = todo[key].row(answer)
                line = {**rows[key], "metadata": {"model": model, "request": key}}
                file.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
                continue
            mapped.dropped[answer.reason] += 1
            mapped.first_dropped.setdefault(
                answer.reason, f"{todo[key].prompt[:40]!r}: {answer.reason}{answer}"
            )
    mapped.rows.extend(rows[q.key] for q in questions.values() if q.key in rows)
    return mapped


def _is_own(row: Any) -> bool:
    return "messages" in row and isinstance(row["metadata"]["request"], str)


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
