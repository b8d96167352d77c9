"""posttrain.sft.records: the recipes, each with a module of its own stage."""

from posttrain.sft.records import RECORDS


def test_each_recipe_belongs_to_its_stage():
    for recipe in RECORDS:
        assert recipe.stage == "sft"
        for name in (recipe.module, recipe.summary):
            assert name.startswith("posttrain.sft.")
