"""posttrain.dpo.records: the recipes, each with a module of its own stage."""

from posttrain.dpo.records import RECORDS


def test_each_recipe_belongs_to_its_stage():
    assert len({recipe.name for recipe in RECORDS}) == len(RECORDS)
    for recipe in RECORDS:
        assert recipe.stage == "dpo"
        for name in (recipe.module, recipe.summary):
            assert name.startswith("posttrain.dpo.")
