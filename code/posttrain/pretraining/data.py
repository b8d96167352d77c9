"""Characters as tokens, and random windows of text as batches.

Chapter: pretraining/training_dynamics.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from posttrain.core import arguments
from posttrain.core.assets import load_text
from posttrain.core.training.identity import require_same, tensor_digest


class CharTokenizer:
    """One token per character.

    Args:
        characters: The vocabulary; its order gives the ids.

    Raises:
        ValueError: If the vocabulary is empty, or holds a character twice or something that is
            not one character.

    Chapter: pretraining/training_dynamics.
    """

    def __init__(self, characters: Iterable[str]) -> None:
        self.characters = tuple(characters)
        self._ids = {character: index for index, character in enumerate(self.characters)}
        if not self.characters:
            raise ValueError("the vocabulary is empty: give at least one character")
        if wrong := [c for c in self.characters if not isinstance(c, str) or len(c) != 1]:
            raise ValueError(f"{wrong[0]!r} is not one character: give single characters")
        if len(self._ids) != len(self.characters):
            raise ValueError("a character stands in the vocabulary twice: give each one once")

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return len(self.characters)

    def encode(self, text: str) -> list[int]:
        """Turn text into token ids.

        Args:
            text: Any string over the vocabulary.

        Returns:
            One id per character.

        Raises:
            ValueError: If a character is not in the vocabulary.
        """
        try:
            return [self._ids[character] for character in text]
        except KeyError as missing:
            raise ValueError(
                f"the character {missing.args[0]!r} is not among the {self.vocab_size} of this "
                "vocabulary: remove it from the text or build the vocabulary with it"
            ) from None

    def decode(self, token_ids: Iterable[int]) -> str:
        """Turn token ids into text.

        Args:
            token_ids: Ids from 0 to below ``vocab_size``.

        Returns:
            One character per id.

        Raises:
            ValueError: If an id is outside the vocabulary, or no whole number.
        """  # noqa: DOC502
        ids = arguments.token_ids(token_ids, "token_ids")
        if outside := [index for index in ids if not 0 <= index < self.vocab_size]:
            raise ValueError(
                f"the token id {outside[0]} is outside this vocabulary of {self.vocab_size}: "
                "decode with the tokenizer whose ids the model was trained on"
            )
        return "".join(self.characters[index] for index in ids)


@dataclass(frozen=True)
class Corpus:
    """A text in two parts, as tokens.

    Attributes:
        tokenizer: Knows every character of both parts.
        train: Token ids to learn from, shape (n_train,), int64.
        validation: Token ids held out, shape (n_validation,), int64.
        train_text: The text of ``train``.
    """

    tokenizer: CharTokenizer
    train: Tensor
    validation: Tensor
    train_text: str


def load_corpus(name: str = "shakespeare") -> Corpus:
    """Load a data set as characters.

    Args:
        name: A data set that ``posttrain.core.assets`` knows.

    Returns:
        The corpus; its vocabulary is the sorted set of characters of both parts.

    Chapter: pretraining/training_dynamics.
    """
    train, validation = load_text(name, "train"), load_text(name, "validation")
    tokenizer = CharTokenizer(sorted(set(train) | set(validation)))
    return Corpus(
        tokenizer,
        torch.tensor(tokenizer.encode(train)),
        torch.tensor(tokenizer.encode(validation)),
        train,
    )


@dataclass(frozen=True)
class Batch:
    """What one training step reads.

    Attributes:
        input_ids: Shape (B, T).
        labels: The next token at each position, shape (B, T).
    """

    input_ids: Tensor
    labels: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """Move both tensors.

        Args:
            device: Where to.

        Returns:
            The batch there.
        """
        return Batch(self.input_ids.to(device), self.labels.to(device))


class RandomWindows:
    """Endless batches of windows that start anywhere in the text.

    Args:
        tokens: The text, shape (n,).
        batch_size: Windows per batch, ``B``.
        context: Length of a window, ``T``.
        seed: Seed of the starting points.
        device: Where batches are delivered.

    Raises:
        ValueError: If a batch would be empty, or the text is shorter than one window and its
            next token.

    Chapter: pretraining/training_dynamics.
    """

    def __init__(
        self,
        tokens: Tensor,
        batch_size: int,
        context: int,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if problem := _window_problem(tokens, context, batch_size):
            raise ValueError(problem)
        self.tokens, self.batch_size, self.context = tokens, batch_size, context
        self.device = device
        self._generator = torch.Generator().manual_seed(seed)
        self._offsets = torch.arange(context + 1)

    def __next__(self) -> Batch:
        """Draw a batch.

        Returns:
            ``B`` windows and what follows each of their characters.
        """
        starts = torch.randint(
            len(self.tokens) - self.context, (self.batch_size, 1), generator=self._generator
        )
        windows = self.tokens[starts + self._offsets]
        return Batch(windows[:, :-1].contiguous(), windows[:, 1:].contiguous()).to(self.device)

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the stream of starting points, and whose it is.

        Returns:
            The generator's state; batch size, context and a hash of the text.
        """
        return {"generator": self._generator.get_state(), **self._identity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position.

        Args:
            state: What :meth:`state_dict` returned.

        Raises:
            ValueError: If it belongs to batches of another size, or of another text.
        """  # noqa: DOC502
        require_same(state, self._identity)
        self._generator.set_state(state["generator"])

    @cached_property
    def _identity(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "context": self.context,
            "data": tensor_digest(self.tokens),
        }


def evaluation_windows(
    tokens: Tensor, context: int, max_windows: int = 0, batch_size: int = 64
) -> list[Batch]:
    """Cut a text into windows end to end, so that no position is scored twice.

    Args:
        tokens: The text, shape (n,).
        context: Length of a window, ``T``.
        max_windows: Keep this many at most, spread evenly over the text; 0 keeps all.
        batch_size: Windows per batch.

    Returns:
        Batches of windows; a last window that is not full is left out.

    Raises:
        ValueError: If ``max_windows`` is negative, a batch would be empty, or the text is
            shorter than one window and its next token.

    Chapter: pretraining/training_dynamics.
    """
    if problem := _window_problem(tokens, context, batch_size):
        raise ValueError(problem)
    if max_windows < 0:
        raise ValueError(f"max_windows is {max_windows}: give a number above 0, or 0 for all")
    count = (len(tokens) - 1) // context
    inputs = tokens[: count * context].view(count, context)
    labels = tokens[1 : count * context + 1].view(count, context)
    if 0 < max_windows < count:
        chosen = torch.arange(max_windows) * (count - 1) // max(1, max_windows - 1)
        inputs, labels = inputs[chosen], labels[chosen]
    return [
        Batch(inputs[i : i + batch_size], labels[i : i + batch_size])
        for i in range(0, len(inputs), batch_size)
    ]


def _window_problem(tokens: Tensor, context: int, batch_size: int) -> str | None:
    """Say why no batch of windows can be cut from a text."""
    if context < 1 or batch_size < 1:
        return f"context is {context} and batch_size is {batch_size}: give at least 1 for both"
    if tokens.dim() != 1 or len(tokens) <= context:
        return (
            f"the text has the shape {tuple(tokens.shape)} and a window needs {context + 1} "
            "tokens in a row: give a longer text or a shorter context"
        )
    return None
