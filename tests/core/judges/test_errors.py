"""posttrain.core.judges.errors: what may be caught together."""

import pytest

from posttrain.core.errors import AssetError, PosttrainError
from posttrain.core.judges.errors import (
    ConflictingVerdictsError,
    EndpointError,
    NoVerdictError,
    TruncatedVerdictError,
    VerdictError,
    VerdictSchemaError,
)


@pytest.mark.parametrize(
    "kind",
    [NoVerdictError, ConflictingVerdictsError, TruncatedVerdictError, VerdictSchemaError],
)
def test_what_a_judge_wrote_is_caught_as_one_kind(kind: type[VerdictError]) -> None:
    with pytest.raises(VerdictError, match="why"):
        raise kind("why")
    assert issubclass(kind, PosttrainError) and not issubclass(kind, EndpointError)


def test_an_endpoint_fails_as_any_source_does() -> None:
    """The command line prints it as one sentence."""
    assert issubclass(EndpointError, AssetError) and issubclass(EndpointError, PosttrainError)
    assert not issubclass(EndpointError, VerdictError)
