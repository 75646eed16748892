"""What a study leaves to be used: its reference with what it validated."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from apex_train.ablation.analysis import Comparison
from apex_train.ablation.study import EVALUATE, Level, Study
from apex_train.config import FitConfig, load_config


def kept_levels(study: Study, comparisons: Sequence[Comparison]) -> list[Level]:
    """Of every factor the validated level with the largest gain, else the reference.

    Several validated levels were each measured beside the references: that they help together is not shown.
    """
    kept = []
    for factor in study.factors:
        won = [each for each in comparisons if each.factor == factor.name and each.verdict == "validated"]
        best = max(won, key=lambda each: each.difference).level if won else factor.levels[0].name
        kept.append(next(level for level in factor.levels if level.name == best))
    return kept


def kept_config(study: Study, comparisons: Sequence[Comparison]) -> FitConfig:
    """The configuration of the kept levels; how a network is measured is no part of one. Raises ConfigError."""
    chosen = dict(study.set) | {"train.epochs": study.epochs}
    for level in kept_levels(study, comparisons):
        chosen |= {key: value for key, value in level.set.items() if not key.startswith(EVALUATE)}
    return load_config(study.base, chosen)


def recipe_text(study: Study, comparisons: Sequence[Comparison]) -> str:
    """``kept_config`` as a file for ``apex-train fit``, with the names of the kept levels on top."""
    levels = zip(study.factors, kept_levels(study, comparisons), strict=True)
    said = [f"# {factor.name}: {level.name}".replace("\n", " ") for factor, level in levels]
    body = yaml.safe_dump(kept_config(study, comparisons).model_dump(mode="json"), sort_keys=False)
    return "\n".join([f"# Kept by the study: {study.name}".replace("\n", " "), *said, body])
