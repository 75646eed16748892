"""What a study leaves to be used: its reference with what it validated."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from apex_runtime.errors import ConfigError
from apex_train.ablation.analysis import Comparison
from apex_train.ablation.study import EVALUATE, Level, Study
from apex_train.config import FitConfig, load_config


def kept_levels(study: Study, comparisons: Sequence[Comparison]) -> list[Level]:
    """Of every factor the validated level with the largest gain, else the reference.

    Several validated levels were each measured beside the references: that they help together is not shown. One that the
    configuration refuses beside those that gain more is left out.
    """
    kept = [factor.levels[0] for factor in study.factors]
    place_of = {factor.name: place for place, factor in enumerate(study.factors)}
    taken: set[int] = set()
    for each in sorted(comparisons, key=lambda each: -each.difference):
        place = place_of[each.factor]
        if each.verdict == "validated" and place not in taken:
            level = next(level for level in study.factors[place].levels if level.name == each.level)
            with_it = [*kept[:place], level, *kept[place + 1 :]]
            if _possible(study, with_it):
                kept, taken = with_it, taken | {place}
    return kept


def _possible(study: Study, levels: Sequence[Level]) -> bool:
    try:
        _config(study, levels)
    except ConfigError:
        return False
    return True


def kept_config(study: Study, comparisons: Sequence[Comparison]) -> FitConfig:
    """The configuration of the kept levels; how a network is measured is no part of one."""
    return _config(study, kept_levels(study, comparisons))


def _config(study: Study, levels: Sequence[Level]) -> FitConfig:
    chosen = dict(study.set) | {"train.epochs": study.epochs}
    for level in levels:
        chosen |= level.set
    return load_config(study.base, {key: value for key, value in chosen.items() if not key.startswith(EVALUATE)})


def recipe_text(study: Study, comparisons: Sequence[Comparison]) -> str:
    """``kept_config`` as a file for ``apex-train fit``, with the names of the kept levels on top."""
    levels = zip(study.factors, kept_levels(study, comparisons), strict=True)
    said = [f"# {factor.name}: {level.name}".replace("\n", " ") for factor, level in levels]
    body = yaml.safe_dump(kept_config(study, comparisons).model_dump(mode="json"), sort_keys=False)
    return "\n".join([f"# Kept by the study: {study.name}".replace("\n", " "), *said, body])
