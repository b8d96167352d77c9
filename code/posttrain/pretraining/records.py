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
]  # fmt: skip
