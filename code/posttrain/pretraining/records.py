"""The recorded runs of Stage 0.

Chapter: pretraining/training_dynamics.
"""

from posttrain.core.recording import Recipe

RECORDS = [
    Recipe(
        "pretraining", "explosion", "Learning rates at which the nano model explodes",
        minutes=5, seeds=tuple(range(10)), module="posttrain.pretraining.recorded.explosion",
        summary="posttrain.pretraining.recorded.stability:explosions",
    ),
    Recipe(
        "pretraining", "warm_up", "The nano model with and without a warm-up",
        minutes=12, seeds=tuple(range(10)), module="posttrain.pretraining.recorded.warm_up",
        summary="posttrain.pretraining.recorded.stability:warm_up_effects",
    ),
]  # fmt: skip
