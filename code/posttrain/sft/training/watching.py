"""How a run is watched: its log, and fixed prompts that it answers every so often.

A loss says how well the next token is predicted. Whether the model has begun to answer as its
rows do is seen in its answers: the same few prompts, before the first step and on the way.

Chapter: sft/your_model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.core.training.run_log import RunLog
from posttrain.sft.chat.formats import format_named
from posttrain.sft.chat.template import Message, encode_chat, special_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from posttrain.sft.presets import SFTPreset


@dataclass(frozen=True)
class Watching:
    """What is shown of a run. It holds plain values, so that it can go to another process.

    Attributes:
        folder: Gets ``metrics.jsonl``.
        prompts: What the fixed prompts say, to be shown.
        prompt_ids: Their token ids, generation prompt included.
        stop_token_id: Ends an answer.
        sample_steps: Every how many steps they are answered; 0 means never.
        max_new_tokens: Longest answer, in tokens.
        report_to: See :class:`posttrain.core.training.run_log.RunLog`.
        show: Whether lines are printed.
    """

    folder: str
    prompts: tuple[str, ...] = ()
    prompt_ids: tuple[tuple[int, ...], ...] = ()
    stop_token_id: int = 0
    sample_steps: int = 0
    max_new_tokens: int = 48
    report_to: tuple[str, ...] = ()
    show: bool = True

    def log(self, preset: SFTPreset, start: int = 0) -> RunLog:
        """Open the run's log.

        Args:
            preset: The run.
            start: Steps that an earlier sitting has done.

        Returns:
            The log.
        """
        return RunLog(
            Path(self.folder),
            preset.training.max_steps,
            start=start,
            report_to=self.report_to,
            config=asdict(preset),
            show=self.show,
        )

    def due(self, step: int, last: int) -> bool:
        """Say whether the prompts are answered after a step.

        Args:
            step: Steps done.
            last: Steps of the whole run.

        Returns:
            True before the first step, every ``sample_steps`` and at the end.
        """
        return bool(self.prompts and self.sample_steps) and (
            step % self.sample_steps == 0 or step == last
        )


def watch(
    folder: Path,
    conversations: Sequence[Sequence[Message]],
    tokenizer: PreTrainedTokenizerBase,
    chat_format: str,
    **options: Any,
) -> Watching:
    """Encode the fixed prompts of a run.

    Args:
        folder: Gets ``metrics.jsonl``.
        conversations: Each ends with a user's message, which is what is shown of it.
        tokenizer: The model's tokenizer.
        chat_format: The model's format.
        **options: Further fields of :class:`Watching`.

    Returns:
        How the run is watched.

    Chapter: sft/your_model.
    """
    stop = special_tokens(tokenizer, chat_format)[format_named(chat_format).stop_token]
    ids = [
        encode_chat(messages, tokenizer, chat_format, add_generation_prompt=True).input_ids
        for messages in conversations
    ]
    return Watching(
        folder=str(folder),
        prompts=tuple(messages[-1]["content"] for messages in conversations),
        prompt_ids=tuple(map(tuple, ids)),
        stop_token_id=stop,
        **options,
    )


def watching_from(fields: dict[str, Any] | None) -> Watching | None:
    """Read it back from JSON.

    Args:
        fields: What ``dataclasses.asdict`` gave, or ``None``.

    Returns:
        The same, or ``None``.

    Chapter: sft/your_model.
    """
    if fields is None:
        return None
    tuples = {
        "prompts": tuple(fields["prompts"]),
        "prompt_ids": tuple(map(tuple, fields["prompt_ids"])),
        "report_to": tuple(fields["report_to"]),
    }
    return Watching(**{**fields, **tuples})
