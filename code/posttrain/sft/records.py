"""The recorded runs of Stage 1.

Chapter: sft/fine_tuning, sft/your_model.
"""

from posttrain.core.recording import Recipe

RECORDS = [
    Recipe(
        "sft", "checkpointing", "Gradient checkpointing: memory saved, time spent",
        minutes=6, seeds=(0, 1, 2), module="posttrain.sft.practice.checkpointing",
        summary="posttrain.sft.practice.numbers:checkpointing", measured=("growth",),
    ),
    Recipe(
        "sft", "forgetting", "Replay and three other remedies against forgetting",
        minutes=20, seeds=(0, 1, 2), module="posttrain.sft.practice.forgetting",
        summary="posttrain.sft.practice.numbers:forgetting",
    ),
    Recipe(
        "sft", "headline", "The main run with several seeds, question by question",
        minutes=10, seeds=(0, 1, 2), module="posttrain.sft.recorded.headline",
        summary="posttrain.sft.recorded.headline_numbers:summarize",
    ),
    Recipe(
        "sft", "packing", "The same batches padded, sorted and packed",
        minutes=5, seeds=(0, 1, 2), module="posttrain.sft.practice.packing_gain",
        summary="posttrain.sft.practice.numbers:packing",
    ),
    Recipe(
        "sft", "rank_and_rate", "Rank and learning rate for three scalings, and full training",
        minutes=27, seeds=(0, 1, 2), module="posttrain.sft.recorded.rank_and_rate",
        summary="posttrain.sft.recorded.best_rates:summarize",
    ),
    Recipe(
        "sft", "row_counts", "Accuracy against the number of training rows",
        minutes=15, seeds=(0, 1, 2), module="posttrain.sft.practice.row_counts",
        summary="posttrain.sft.practice.numbers:row_counts",
    ),
    Recipe(
        "sft", "true_shape", "Memory predicted and measured, models of true shape",
        minutes=40, seeds=(0,), module="posttrain.sft.recorded.true_shape",
        summary="posttrain.sft.recorded.true_shape_numbers:summarize",
        measured=("loaded", "peak", "growth"),
    ),
    Recipe(
        "sft", "turns", "Training on all answers of a conversation, or on the last",
        minutes=15, seeds=(0, 1, 2), module="posttrain.sft.practice.turns",
        summary="posttrain.sft.practice.numbers:turns",
    ),
]  # fmt: skip
