"""The advice as a commented YAML file."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence

from apex_train.preflight.advice import Advice
from apex_train.preflight.facts import Facts

RARE = 20  # objects of a class in the training split, below which it is named
_WIDTH = 120
_LISTED = 100  # classes with their counts
_SECTIONS = ("model", "train", "augment")


def as_yaml(facts: Facts, advice: Sequence[Advice]) -> str:
    """The text of the file: what was measured, then every value below its reason. Keys that are not here keep their defaults."""
    lines = [*_comment(_head(facts)), *_class_lines(facts), "#"]
    lines += _comment(["Keys that are not named here keep their defaults; docs/training.md lists them."])
    for section in _SECTIONS:
        lines += ["", f"{section}:"]
        for item in advice:
            owner, _, key = item.key.partition(".")
            if owner == section:
                lines += [*_comment([item.reason], "  "), f"  {key}: {json.dumps(item.value)}"]
    return "\n".join(lines) + "\n"


def rare_classes(facts: Facts) -> tuple[list[str], list[str]]:
    """Classes with fewer than RARE objects to train on, and those with none."""
    counts = [(name, facts.train.classes[label]) for label, name in enumerate(facts.train.class_names)]
    return [name for name, count in counts if 0 < count < RARE], [name for name, count in counts if count == 0]


def _head(facts: Facts) -> Iterator[str]:
    train = facts.train
    splits = ", ".join(f"{name} {count}" for name, count in facts.splits.items())
    yield f"A configuration for {facts.data} ({facts.kind}), measured by apex-train init. Images: {splits}."
    objects = sum(train.per_image)
    sizes = f"{facts.longest.min():.0f} to {facts.longest.max():.0f} px on their longer side"
    yield f"{train.split}: {objects} objects ({train.with_mask} with a mask) in images of {sizes}."
    if train.split != "train":
        yield "There is no split train, which apex-train fit needs; this one was measured in its place."
    if facts.errors:
        yield f"{facts.errors} annotations or files are faulty: run apex-train preflight first."


def _class_lines(facts: Facts) -> Iterator[str]:
    """The classes with the objects that there are to train on, and those that have few."""
    names = facts.train.class_names
    counts = [f"{name} {facts.train.classes[label]}" for label, name in enumerate(names)]
    more = f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    yield from _comment(
        [f"{len(names)} classes, with their objects in {facts.train.split}: {', '.join(counts[:_LISTED])}{more}."]
    )
    rare, absent = rare_classes(facts)
    if rare:
        yield from _comment([f"Rare (fewer than {RARE} objects): {', '.join(rare[:_LISTED])}."])
    if absent:
        yield from _comment([f"Without an object, and not to be learned: {', '.join(absent[:_LISTED])}."])


def _comment(paragraphs: Iterator[str] | Sequence[str], indent: str = "") -> Iterator[str]:
    """Comment lines. Names come from files: no letter of theirs may end the comment."""
    for paragraph in paragraphs:
        text = "".join(letter if letter.isprintable() else "?" for letter in paragraph)
        for line in textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False):
            yield f"{indent}# {line}"
