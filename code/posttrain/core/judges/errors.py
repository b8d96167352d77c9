"""What can go wrong between a question and a verdict.

Chapter: dpo/preference_data.
"""

from posttrain.core.errors import AssetError, PosttrainError


class EndpointError(AssetError):
    """An endpoint cannot be reached, refuses, or answers with something else than asked for."""


class VerdictError(PosttrainError):
    """What a judge wrote is not exactly one verdict."""


class NoVerdictError(VerdictError):
    """A judge wrote no verdict."""


class ConflictingVerdictsError(VerdictError):
    """A judge wrote two verdicts that differ."""


class TruncatedVerdictError(VerdictError):
    """A judge's answer ends in the middle."""


class VerdictSchemaError(VerdictError):
    """A judge wrote a verdict in another form than the accepted ones."""
