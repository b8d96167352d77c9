"""The recorded runs of Stage 2.

Chapter: dpo/alignment.
"""

from posttrain.core.recording import Recipe

RECORDS = [
    Recipe(
        "dpo", "engines", "The same pairs by hand, with TRL and with Unsloth",
        minutes=6, seeds=(0,), module="posttrain.dpo.recorded.engines",
        summary="posttrain.dpo.recorded.numbers:engines",
    ),
    Recipe(
        "dpo", "people", "Five judges beside people, on 500 pairs of HH-RLHF",
        minutes=20, seeds=(0,), module="posttrain.dpo.recorded.people",
        summary="posttrain.dpo.recorded.numbers:people",
    ),
    Recipe(
        "dpo", "settings", "Beta, flipped labels, and the number of pairs",
        minutes=50, seeds=(0, 1, 2), module="posttrain.dpo.recorded.settings",
        summary="posttrain.dpo.recorded.numbers:settings",
    ),
]  # fmt: skip
