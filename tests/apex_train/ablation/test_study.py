"""What a study file may say, and which cells it becomes."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from apex_runtime.errors import ConfigError
from apex_train.ablation.plan import Training, plan
from apex_train.ablation.study import Study, read_study

STUDY: dict[str, Any] = {
    "name": "boxes",
    "data": "nuclei",
    "set": {"train.size": 128, "train.crop": 64},
    "epochs": 2,
    "evaluate": {"budget": 0.5},
    "seeds": [0, 1, 2, 3, 4, 5, 6, 7],
    "factors": [
        {"name": "box loss", "key": "loss.box_kind", "levels": ["ciou", "giou"]},
        {
            "name": "light",
            "levels": [{"name": "on"}, {"name": "off", "set": {"augment.brightness": 0, "augment.contrast": 0}}],
        },
        {"key": "evaluate.choice", "levels": ["router", "random"]},
    ],
}


def planned(**changes: Any) -> tuple[Training, ...]:
    return plan(Study.model_validate(STUDY | changes), "data")


def test_one_factor_at_a_time_has_an_arm_per_level() -> None:
    trainings = planned()
    assert len(trainings) == 8 * 3  # how it is measured needs no training of its own
    cells = [cell for training in trainings for cell in training.cells]
    assert len(cells) == 8 * 4 == len({cell.key for cell in cells})
    first = [(cell.levels, cell.evaluation.choice) for training in trainings for cell in training.cells if cell.seed == 0]
    assert sorted(first) == [
        (("ciou", "off", "router"), "router"),
        (("ciou", "on", "random"), "random"),
        (("ciou", "on", "router"), "router"),
        (("giou", "on", "router"), "router"),
    ]
    dimmed = next(training.config for training in trainings if training.cells[0].levels[1] == "off")
    assert (dimmed.augment.brightness, dimmed.augment.contrast, dimmed.loss.box_kind) == (0, 0, "ciou")
    assert all(training.config.train.seed == training.cells[0].seed for training in trainings)


def test_a_full_design_has_an_arm_per_combination() -> None:
    trainings = planned(design="full")
    assert len(trainings) == 8 * 4
    assert len({(cell.levels, cell.seed) for training in trainings for cell in training.cells}) == 8 * 8


def test_a_cell_keeps_its_name_while_the_study_grows() -> None:
    def keys(trainings: tuple[Training, ...]) -> set[str]:
        return {cell.key for training in trainings for cell in training.cells}

    small = keys(planned())
    grown = keys(planned(seeds=[*range(9)], factors=[*STUDY["factors"], {"key": "loss.cls", "levels": [0.5, 1.0]}]))
    assert small < grown
    assert keys(planned(set=STUDY["set"] | {"train.workers": 0})) == small
    assert keys(planned(epochs=3)).isdisjoint(small)
    assert keys(plan(Study.model_validate(STUDY), "other data")).isdisjoint(small)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"factors": []}, "factors"),
        ({"evaluate": {"budget": "half"}}, "evaluate.budget: .*'half' is not a budget"),
        ({"evaluate": {"budget": "8ms"}}, "8ms: a deadline"),
        ({"epoch": 3}, "epoch"),
        ({"seeds": [0, 0, 1]}, "0 stands there twice"),
        ({"seeds": [0, 1, 2]}, "test: student"),
        ({"set": {"train.seed": 4}}, "train.seed"),
        ({"factors": [STUDY["factors"][0], STUDY["factors"][0]]}, "box loss stands there twice"),
        ({"factors": [{"key": "loss.box_kind", "levels": ["ciou", "ciou"]}]}, "ciou stands there twice"),
        ({"factors": [{"key": "loss.box_kind", "levels": ["ciou"]}]}, "levels"),
        ({"factors": [{"key": "loss.box_kind", "levels": [{"name": "x"}, "ciou"]}]}, "plain values"),
    ],
)
def test_what_a_study_cannot_mean_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(STUDY | changes))
    with pytest.raises(ConfigError, match=words) as refused:
        read_study(file)
    assert "study.yaml" in str(refused.value)


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        ({"key": "loss.boxx", "levels": [1, 2]}, r"loss.boxx = 1: .*loss.boxx"),
        ({"key": "loss.box_kind", "levels": ["ciou", "best"]}, r"loss.box_kind = best"),
        ({"key": "evaluate.choice", "levels": ["router", "guess"]}, r"evaluate.choice = guess: evaluate.choice"),
        ({"key": "evaluate.budget", "levels": [0.5, 1.5]}, r"evaluate.budget = 1.5: evaluate.budget"),
        ({"key": "train.workers", "levels": [0, 1]}, "0 and 1 train and measure the same thing"),
    ],
)
def test_a_level_that_cannot_be_is_named_before_anything_is_trained(factor: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        planned(factors=[factor])


def test_paths_are_from_the_folder_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(STUDY | {"base": "fit.yaml"}))
    study = read_study(file)
    assert (study.data, study.base) == (tmp_path / "nuclei", tmp_path / "fit.yaml")


def test_few_seeds_are_enough_for_student() -> None:
    assert Study.model_validate(STUDY | {"seeds": [0, 1, 2], "test": "student"}).comparisons == 3


@pytest.mark.parametrize("budget", [1.0, "100%"])
def test_with_all_tiles_nobody_chooses(budget: object) -> None:
    factor = {"key": "evaluate.choice", "levels": ["router", "coverage"]}
    with pytest.raises(ConfigError, match="router and coverage train and measure the same thing"):
        planned(factors=[factor], evaluate={"budget": budget})


def test_tiles_of_several_levels_are_chosen_by_the_router_alone() -> None:
    deep = STUDY["set"] | {"model.depth": 2, "train.size": 256, "train.crop": 128}
    factor = {"key": "loss.box_kind", "levels": ["ciou", "giou"]}
    assert len(planned(set=deep, factors=[factor])) == 16
    with pytest.raises(ConfigError, match=r"choice: random chooses tiles of one level, and model.depth is 2"):
        planned(set=deep, factors=[factor], evaluate={"budget": 0.5, "choice": "random"})


def test_other_weights_of_images_are_another_training(tmp_path: Path) -> None:
    file = tmp_path / "weights.json"
    changes = {"set": {"train.sample_weights": str(file)}}
    with pytest.raises(ConfigError, match=r"weights\.json: No such file"):
        planned(**changes)
    keys = []
    for content in ("one", "one", "other"):
        file.write_text(content)
        keys.append({training.key for training in planned(**changes)})
    assert keys[0] == keys[1] and keys[0].isdisjoint(keys[2])
