"""The exceptions that posttrain raises on purpose, each with a sentence a reader can act on.

Chapter: start/how_this_book_works.
"""


class PosttrainError(Exception):
    """Base class: the command line prints it as one line, without a traceback."""


class AssetError(PosttrainError):
    """A model, tokenizer or data set is missing, damaged or unknown."""


class ArtifactError(PosttrainError):
    """The artifact store could not build, read or remove an artifact."""


class RecordError(PosttrainError):
    """A recorded run is missing, damaged, or cannot be made."""


class TrainingIncomplete(PosttrainError):
    """A run ended before its steps were taken, or without having trained anything."""


class TrainingDiverged(PosttrainError):
    """Training stopped because the loss or the gradient stopped making sense.

    Args:
        step: Optimizer step at which it was noticed, counted from 0.
        cause: The likely cause in a few words. Both are attributes too.
    """

    def __init__(self, step: int, cause: str) -> None:
        super().__init__(f"training diverged at step {step}: {cause}")
        self.step = step
        self.cause = cause

    def __reduce__(self) -> tuple[type["TrainingDiverged"], tuple[int, str]]:
        """Pickle by the two arguments, so that worker processes can raise it."""
        return type(self), (self.step, self.cause)
