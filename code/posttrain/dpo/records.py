"""The recorded runs of Stage 2.

Chapter: dpo/alignment.
"""

from posttrain.core.recording import Recipe

RECORDS = [
    Recipe(
        "dpo", "settings", "Beta, flipped labels, and the number of pairs",
        minutes=50, seeds=(0, 1, 2), module="posttrain.dpo.recorded.settings",
        summary="posttrain.dpo.recorded.numbers:settings",
    ),
]  # fmt: skip
