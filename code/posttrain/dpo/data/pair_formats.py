"""One row as a preference pair: the formats that TRL knows, and what is refused in them.

A pair is one prompt and two answers to it. Whatever would make the two answers follow different
prompts, or leave nothing to tell them apart, is refused here, before a token is made.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from posttrain.sft.chat.messages import Message, is_absent, is_trained
from posttrain.sft.data.hub import MAX_CHARACTERS, MalformedRowError
from posttrain.sft.data.row_formats import MESSAGES, PAIR, row_format, row_messages

EXPLICIT = "prompt / chosen / rejected"
IMPLICIT = "chosen / rejected with the prompt inside"
ACCEPTED = (
    "prompt, chosen and rejected, as texts or as lists of messages; or chosen and rejected "
    "alone, as two conversations with a common start"
)
ANSWERS = ("chosen", "rejected")

_OTHER_FORMATS = ("messages", "conversations", "completion", "instruction")
_ROW_FLAGS = ("weight", "loss_weight", "sample_weight")
_ASKING = ("user", "human", "system", "developer")
_ANSWERING = ("assistant", "gpt")


class PairRow(TypedDict):
    """One preference pair, in TRL's conversational format.

    ``prompt`` ends with a user's message; ``chosen`` and ``rejected`` hold one message of the
    assistant each.
    """

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]


def answer_text(pair: PairRow, which: str) -> str:
    """Return what one answer of a pair says.

    Args:
        pair: A pair.
        which: "chosen" or "rejected".

    Returns:
        The text of the answer.

    Raises:
        ValueError: If ``which`` is neither.

    Chapter: dpo/preference_data.
    """
    if which == "chosen":
        return pair["chosen"][0]["content"]
    if which == "rejected":
        return pair["rejected"][0]["content"]
    raise ValueError(f"which is {which!r}: give 'chosen' or 'rejected'")


def is_prefix_pair(pair: PairRow) -> bool:
    """Say whether one answer of a pair is the beginning of the other.

    Such a pair can be trained on: behind the shorter answer stands the stop token, where the
    longer one goes on, so the two differ from there. It teaches where to stop and nothing else.

    Args:
        pair: A pair.

    Returns:
        Whether the shorter answer, without white space at its end, begins the longer one.

    Chapter: dpo/preference_data.
    """
    short, long = sorted((answer_text(pair, which).rstrip() for which in ANSWERS), key=len)
    return long.startswith(short)


def pair_format(row: Any) -> str:
    """Recognise the format of a row.

    Args:
        row: What a line of the file holds.

    Returns:
        `EXPLICIT` or `IMPLICIT`.

    Raises:
        MalformedRowError: If it is no row, lacks an answer or has one of null, is of another
            format, or has a field that would change what is trained and is not known here.

    Chapter: dpo/preference_data.
    """  # noqa: DOC503
    if not isinstance(row, Mapping):
        raise MalformedRowError(
            "not a row", f"{type(row).__name__}; an object is needed, with {ACCEPTED}"
        )
    if row.keys().isdisjoint(ANSWERS):
        raise _no_pair(row)
    for name in ANSWERS:
        if row.get(name) is None:
            what = "null" if name in row else "missing"
            raise MalformedRowError(
                f"missing {name}", f"the field {name!r} is {what}; a pair needs both answers"
            )
    rest = {name: value for name, value in row.items() if name not in (*ANSWERS, "prompt")}
    if rest.get("messages") in (row["chosen"], row["rejected"]):
        del rest["messages"]  # some sets repeat the chosen conversation there
    if others := [name for name in _OTHER_FORMATS if not is_absent(rest.get(name))]:
        raise MalformedRowError(
            "two formats", f"it has 'chosen' and {others[0]!r}: keep one of them"
        )
    row_format({**rest, "prompt": "?", "completion": "!"})  # refuses what would be lost
    holds_prompt = [_asks_first(row[name]) for name in ANSWERS]
    if all(holds_prompt) and not isinstance(row.get("prompt"), list | tuple):
        return IMPLICIT
    if not is_absent(row.get("prompt")) or row.get("prompt") == "":
        return EXPLICIT
    if any(isinstance(row[name], str) for name in ANSWERS):
        raise MalformedRowError(
            "missing prompt",
            "'chosen' and 'rejected' are texts without a 'prompt': add it, or read the "
            "dialogues of HH-RLHF with load_hh_rlhf",
        )
    raise MalformedRowError("missing prompt", "the field 'prompt' is missing or null")


def pair_row(
    row: Any, form: str | None = None, *, max_characters: int = MAX_CHARACTERS
) -> PairRow:
    """Turn a row into a preference pair.

    Texts stay as they are. A text as the prompt becomes a user's message, a text as an answer
    the assistant's; a ``system`` field becomes the system message. Of two conversations the
    prompt is what they have in common at their start, in whole messages.

    Args:
        row: A row.
        form: Its format; None recognises it.
        max_characters: Longest pair of prompt and answer to take.

    Returns:
        The pair. No message in it has a weight.

    Raises:
        MalformedRowError: If the row is no such pair: an answer is empty, too long or no
            answer, the two are the same, a text holds the like of ``<|im_end|>``, the prompt
            ends with an answer or with white space, or the roles are out of order.

    Chapter: dpo/preference_data.
    """  # noqa: DOC502
    form = pair_format(row) if form is None else form
    if form == EXPLICIT:
        _check_prompt(row["prompt"])
    read = [_conversation(row, name, form, max_characters) for name in ANSWERS]
    return split_conversations(*read)


def make_pair(
    prompt: str | Sequence[Message],
    chosen: str,
    rejected: str,
    *,
    max_characters: int = MAX_CHARACTERS,
) -> PairRow:
    """Make a pair of a prompt and two answers, checked as a file's rows are.

    Args:
        prompt: A question, or messages of which the user's is the last.
        chosen: The better answer.
        rejected: The worse answer.
        max_characters: As in `pair_row`.

    Returns:
        The pair.

    Raises:
        MalformedRowError: As in `pair_row`.

    Chapter: dpo/preference_data.
    """  # noqa: DOC502
    asked = prompt if isinstance(prompt, str) else list(prompt)
    row = {"prompt": asked, "chosen": chosen, "rejected": rejected}
    return pair_row(row, EXPLICIT, max_characters=max_characters)


def split_conversations(chosen: Sequence[Message], rejected: Sequence[Message]) -> PairRow:
    """Split two conversations behind their last common message.

    Whole messages are compared. The last common *character* would lie inside the answers, where
    they begin alike.

    Args:
        chosen: A conversation that ends with the better answer.
        rejected: One that ends with the worse answer.

    Returns:
        The pair.

    Raises:
        MalformedRowError: If the conversations do not differ in their last message alone, both
            of an assistant, or the prompt ends with white space.

    Chapter: dpo/preference_data.
    """
    common = 0
    for ours, theirs in zip(chosen, rejected, strict=False):
        if _said(ours) != _said(theirs):
            break
        common += 1
    left = [list(chosen[common:]), list(rejected[common:])]
    if not any(left) or (
        [len(part) for part in left] == [1, 1]
        and left[0][0]["role"] == left[1][0]["role"]
        and left[0][0]["content"].strip() == left[1][0]["content"].strip()
    ):
        raise MalformedRowError(
            "chosen = rejected", "the two answers are the same, so there is nothing to prefer"
        )
    if common == 0 or any(part and part[0]["role"] != "assistant" for part in left):
        raise MalformedRowError(
            "different prompts",
            f"'chosen' and 'rejected' part in message {common}, which is no answer",
        )
    if [len(part) for part in left] != [1, 1]:
        counts = " and ".join(str(len(part)) for part in left)
        raise MalformedRowError(
            "more than one answer",
            f"behind the last common message stand {counts} messages; give one answer each",
        )
    prompt = [_said(message) for message in chosen[:common]]
    last = prompt[-1]
    if last["role"] != "user":
        raise MalformedRowError(
            "prompt ends with an answer",
            f"its last message is from the {last['role']}; a user's must come last",
        )
    if last["content"] != last["content"].rstrip():
        raise MalformedRowError(
            "white space at the prompt's end",
            f"the prompt ends with {last['content'][-1]!r}: remove it, since nobody who asks "
            "will write it",
        )
    return {"prompt": prompt, "chosen": [_said(left[0][0])], "rejected": [_said(left[1][0])]}


# --- parts ---


def _no_pair(row: Mapping[str, Any]) -> MalformedRowError:
    if isinstance(row.get("label"), bool):
        return MalformedRowError(
            "unpaired answers",
            "one answer with a label is data for KTO; pairs need 'chosen' and 'rejected'",
        )
    names = ", ".join(str(name) for name, value in row.items() if not is_absent(value))
    return MalformedRowError(
        "unknown format", f"its fields are {names or 'none'}; accepted are {ACCEPTED}"
    )


def _asks_first(conversation: Any) -> bool:
    return _role(conversation, 0) in _ASKING


def _role(conversation: Any, index: int) -> Any:
    """Read a message's role where there is one; what is wrong is said elsewhere."""
    if not isinstance(conversation, list | tuple) or not conversation:
        return None
    message = conversation[index]
    if not isinstance(message, Mapping):
        return None
    return message.get("role", message.get("from"))


def _check_prompt(prompt: Any) -> None:
    if isinstance(prompt, list | tuple):
        if not prompt:
            raise MalformedRowError("empty prompt", "the list 'prompt' holds no message")
        if _role(prompt, -1) in _ANSWERING:
            raise MalformedRowError(
                "prompt ends with an answer",
                "its last message is from the assistant, so an answer would follow an answer; "
                "a user's must come last",
            )
    elif isinstance(prompt, str):
        if not prompt.strip():
            raise MalformedRowError("empty prompt", "the field 'prompt' holds no text")
    else:
        raise MalformedRowError(
            "wrong type",
            f"'prompt' is {type(prompt).__name__}; text or a list of messages is needed",
        )


def _conversation(
    row: Mapping[str, Any], name: str, form: str, max_characters: int
) -> list[Message]:
    """Read the prompt with one of its answers, by the rules of Stage 1's rows."""
    kept = {key: row[key] for key in ("system", *_ROW_FLAGS) if key in row}
    if form == EXPLICIT:
        kept |= {"prompt": row["prompt"], "completion": row[name]}
        if isinstance(row[name], list | tuple) and len(row[name]) != 1:
            raise MalformedRowError(
                "more than one answer" if row[name] else "empty answer",
                f"{name!r} holds {len(row[name])} messages; beside a 'prompt' it must be one, "
                "of the assistant",
            )
    else:
        kept |= {"messages": row[name], "prompt": row.get("prompt")}
    try:
        messages = row_messages(
            kept, PAIR if form == EXPLICIT else MESSAGES, max_characters=max_characters
        )
    except MalformedRowError as error:
        details = (
            str(error).removeprefix(f"{error.reason}: ").replace("'completion'", repr(name))
        )
        reason = error.reason.replace("completion", name)
        raise MalformedRowError(reason, f"in the prompt with {name!r}, {details}") from None
    if not is_trained(messages[-1]):
        raise MalformedRowError(
            "answer of weight 0", f"{name!r} is not to be trained: remove the row or the weight"
        )
    return messages


def _said(message: Message) -> Message:
    """Return a message without its weight: of a pair the two answers alone are trained."""
    return {"role": message["role"], "content": message["content"]}
