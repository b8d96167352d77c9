"""The recorded runs of Stage 0.

Chapter: pretraining/training_dynamics.
"""

from posttrain.core.recording import Recipe

RECORDS = [
    Recipe(
        "pretraining", "explosion", "Learning rates at which the nano model explodes",
        minutes=5, seeds=tuple(range(10)), module="posttrain.pretraining.explosion",
        summary="posttrain.pretraining.stability:explosions",
    ),
    Recipe(
        "pretraining", "warm_up", "The nano model with and without a warm-up",
        minutes=12, seeds=tuple(range(10)), module="posttrain.pretraining.warm_up",
        summary="posttrain.pretraining.stability:warm_up_effects",
    ),
]  # fmt: skip
