"""The options by which detections become labels, for the commands that make them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from apex_runtime.cli.options import FiniteRange, split_list

if TYPE_CHECKING:
    from apex_train.pseudo.run import Choice

SHARE = FiniteRange(0, 1)
# In a view a detection counts from this share of the score that the image itself asks for: a little less sure is still the same.
_SHARE_IN_VIEWS = 0.5
_LIMITS = ("min_score", "min_stability", "min_agreement", "min_consistency", "unsure_score")
# Measured on nuclei (bench/LOG.md): with a stability of 0.8 a quarter of the recall was left, at nearly the same precision.
_OPTIONS = (
    click.option("--min-score", type=SHARE, default=0.5, show_default=True, help="Least score of a label."),
    click.option(
        "--min-stability",
        type=SHARE,
        default=0.5,
        show_default=True,
        help="Least share of a mask that stays when its threshold moves.",
    ),
    click.option(
        "--min-agreement", type=SHARE, default=0.7, show_default=True, help="Least IoU of a box and the box around its mask."
    ),
    click.option(
        "--min-consistency", type=SHARE, default=0.5, show_default=True, help="Least mean IoU with what is found in the views."
    ),
    click.option(
        "--views",
        multiple=True,
        default=("flip-x", "flip-y", "scale-0.75"),
        show_default=True,
        callback=split_list,
        help="How the model sees every image again: flip-x, flip-y, flip-xy, scale-S; or none.",
    ),
    click.option(
        "--unsure-score", type=SHARE, default=0.1, show_default=True, help="From this score on what is no label is unsure."
    ),
    click.option(
        "--unsure",
        type=click.Choice(["crowd", "background"]),
        default="crowd",
        show_default=True,
        help="What is unsure becomes a crowd region, from which a training learns nothing, or background.",
    ),
)


def label_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The limits of a label, the views, and what becomes of the unsure."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def choice_of(options: dict[str, Any], chosen_by: str | None) -> Choice:
    """The choice that the options are. ``chosen_by``: the option that has the limits chosen, beside which none may be given.

    Raises UsageError.
    """
    from apex_runtime.errors import UsageError
    from apex_train.pseudo.choose import STEPS, Limits
    from apex_train.pseudo.run import Choice
    from apex_train.pseudo.views import parse_views

    both = [name for name in _LIMITS if given(name)]
    if chosen_by is not None and both:
        option = f"--{both[0].replace('_', '-')}"
        raise UsageError(f"{chosen_by} and {option}: the limits are chosen on the split.", "Give one of the two.")
    least = {step: options[f"min_{step}"] for step in STEPS}
    in_views = options["min_score"] * _SHARE_IN_VIEWS
    limits = Limits(**least, unsure=options["unsure_score"], in_views=in_views)
    return Choice(limits, parse_views(options["views"]), options["unsure"] == "crowd")


def given(name: str) -> bool:
    """Whether the user wrote the option of this parameter, be it with its default."""
    from click.core import ParameterSource

    return click.get_current_context().get_parameter_source(name) == ParameterSource.COMMANDLINE
