"""The recorded runs of Stage 1.

Chapter: sft/fine_tuning.
"""

from posttrain.core.recording import Recipe

RECORDS = [
    Recipe(
        "sft", "headline", "The main run with several seeds, question by question",
        minutes=10, seeds=(0, 1, 2), module="posttrain.sft.recorded.headline",
        summary="posttrain.sft.recorded.headline_numbers:summarize",
    ),
    Recipe(
        "sft", "rank_and_rate", "Rank and learning rate for three scalings, and full training",
        minutes=27, seeds=(0, 1, 2), module="posttrain.sft.recorded.rank_and_rate",
        summary="posttrain.sft.recorded.best_rates:summarize",
    ),
    Recipe(
        "sft", "true_shape", "Memory predicted and measured, models of true shape",
        minutes=40, seeds=(0,), module="posttrain.sft.recorded.true_shape",
        summary="posttrain.sft.recorded.true_shape_numbers:summarize",
    ),
]  # fmt: skip
