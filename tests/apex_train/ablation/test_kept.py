"""What a study leaves: the reference, with what was validated and nothing else."""

from pathlib import Path

import pytest
import yaml

from apex_runtime.errors import ConfigError
from apex_train.ablation.analysis import compare
from apex_train.ablation.kept import kept_config, kept_levels, recipe_text
from apex_train.ablation.plan import arms, plan
from apex_train.ablation.study import Study, read_study
from apex_train.config import load_config

# what a level adds in points of AP; 0.3 times the seed comes on top, and a little that differs from arm to arm
GAINS = {"giou": 4.0, "mpdiou": 6.0, "diou": -5.0, "0": -3.0, "random": -9.0, "0.1": 0.0}


def study(**changes: object) -> Study:
    factors = [
        {"key": "loss.box_kind", "levels": ["ciou", "giou", "mpdiou", "diou"]},
        {"key": "loss.oracle", "levels": [0.2, 0]},
        {"key": "evaluate.choice", "levels": ["router", "random"]},
        {"name": "light", "levels": [{"name": "on"}, {"name": "0.1", "set": {"augment.brightness": 0.1}}]},
    ]
    made = {"name": "of\nall", "data": "none", "epochs": 7, "seeds": [0, 1, 2], "test": "student", "factors": factors}
    return Study.model_validate(made | {"set": {"train.size": 128}, "evaluate": {"budget": 0.5}} | changes)


def scores(what: Study) -> dict[tuple[tuple[str, ...], int], float]:
    found = {}
    for number, arm in enumerate(arms(what)):
        names = tuple(level.name for level in arm)
        for seed in what.seeds:
            own = 0.05 * ((number * 7 + seed * 3) % 5 - 2)
            found[names, seed] = (40 + 0.3 * seed + own + sum(GAINS.get(name, 0.0) for name in names)) / 100
    return found


def test_the_best_validated_level_of_every_factor_is_kept() -> None:
    what = study()
    comparisons = compare(what, scores(what))
    assert [level.name for level in kept_levels(what, comparisons)] == ["mpdiou", "0.2", "router", "on"]
    kept = kept_config(what, comparisons)
    assert kept == load_config(None, {"train.size": 128, "train.epochs": 7, "loss.box_kind": "mpdiou", "loss.oracle": 0.2})


def test_it_is_a_recipe(tmp_path: Path) -> None:
    what = study()
    file = tmp_path / "kept.yaml"
    file.write_text(recipe_text(what, compare(what, scores(what))))
    assert load_config(file, {}).loss.box_kind == "mpdiou"
    assert file.read_text().startswith("# Kept by the study: of all\n# loss.box_kind: mpdiou\n")


def test_a_study_starts_from_a_checkpoint(tmp_path: Path) -> None:
    """Other weights are other trainings; a checkpoint that is not there is named before anything is trained."""
    what = study()
    keys = [{training.key for training in plan(what, "data", sha)} for sha in (None, "one", "two")]
    assert not keys[0] & keys[1] and not keys[1] & keys[2] and len(keys[0]) == len(keys[2])
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(what.model_dump(mode="json") | {"init": "no.pt"}))
    with pytest.raises(ConfigError, match=r"init: .*no\.pt is not there"):
        read_study(file)


def test_the_router_alone_needs_weights_to_start_from() -> None:
    with pytest.raises(ConfigError, match="random"):
        plan(study(set={"train.only": "router"}), "data")


def test_how_it_is_measured_may_stand_under_set_too() -> None:
    what = study(set={"train.size": 128, "evaluate.budget": 0.25})
    assert kept_config(what, compare(what, scores(what))).train.size == 128


def test_levels_that_cannot_be_together_are_not_kept_together() -> None:
    """Both halves of what the configuration refuses help alone: the one that gains more is kept."""
    factors = [
        {"name": "head", "levels": [{"name": "on"}, {"name": "giou", "set": {"model.mask_quality": False}}]},
        {"name": "term", "levels": [{"name": "off"}, {"name": "mpdiou", "set": {"loss.mask_quality": 0.5}}]},
    ]
    what = study(factors=factors, set={"train.size": 128, "model.mask_quality": True})
    plan(what, "data")  # each alone can be
    comparisons = compare(what, scores(what))
    assert {each.verdict for each in comparisons} == {"validated"}
    assert [level.name for level in kept_levels(what, comparisons)] == ["on", "mpdiou"]
    assert kept_config(what, comparisons).loss.mask_quality == 0.5
