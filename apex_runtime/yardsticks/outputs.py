"""Do the outputs of a graph have the names and shapes that the description gives them? Asked of the file, and of every call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from apex_runtime.errors import ModelError
from apex_runtime.yardsticks.description import Description, EndToEnd, Joined, Separate
from apex_runtime.yardsticks.graph import Shape, shown

_REMEDY = "Correct outputs or classes in the description; docs/yardsticks.md has the forms."
_BOX, _BEHIND_BOX = 4, 2  # numbers of a box; score and class of a row that has both


class OutputCheck:
    """The outputs that a description names, compared with shapes; the error names the model file at ``path``."""

    def __init__(self, path: Path, description: Description) -> None:
        self._path, self._description = path, description
        self.names = output_names(description)

    def check(self, shapes: Mapping[str, Shape]) -> None:
        """``shapes`` with their batch axis, None for what is known at run time only. Raises ModelError."""
        outputs = self._description.outputs
        for name in self.names:
            if name not in shapes:
                message = f"{self._path}: the graph has no output {name!r}; it has {', '.join(shapes) or 'none'}."
                raise ModelError(message, "Correct the names below outputs in the description.", path=self._path)
        if isinstance(outputs, Separate):
            self._check_separate(outputs, shapes)
        else:
            self._check_rows(outputs, shapes)

    def _check_rows(self, outputs: Joined | EndToEnd, shapes: Mapping[str, Shape]) -> None:
        """One tensor that has everything of a place."""
        found = self._ranked(outputs.tensor, shapes, 3)
        numbers = found[1] if isinstance(outputs, Joined) and outputs.places == "last" else found[2]
        masks = 0 if outputs.prototypes is None else self._ranked(outputs.prototypes, shapes, 4)[1]
        if numbers is None or masks is None:
            return
        if isinstance(outputs, Joined):
            self._columns(outputs.tensor, found, numbers - _BOX - masks)
        elif numbers != _BOX + _BEHIND_BOX + masks:
            expected = f"{numbers} numbers per place, expected 4 of the box, score, class and {masks} coefficients"
            self._fail(outputs.tensor, found, expected)

    def _check_separate(self, outputs: Separate, shapes: Mapping[str, Shape]) -> None:
        boxes = self._ranked(outputs.boxes, shapes, 3)
        if boxes[2] not in (None, _BOX):
            self._fail(outputs.boxes, boxes, "4 numbers per box were expected")
        scores = self._ranked(outputs.scores, shapes, 3 if outputs.labels is None else 2)
        if outputs.labels is None and scores[2] is not None:
            self._columns(outputs.scores, scores, scores[2])
        ranks = {outputs.scores: len(scores), outputs.labels: 2, outputs.masks: 4, outputs.coefficients: 3}
        for name, rank in ranks.items():
            places = None if name is None else self._ranked(name, shapes, rank)[1]
            if name is not None and None not in (places, boxes[1]) and places != boxes[1]:
                self._fail(name, shapes[name], f"{outputs.boxes!r} has {boxes[1]} places")
        self._check_coefficients(outputs, shapes)

    def _check_coefficients(self, outputs: Separate, shapes: Mapping[str, Shape]) -> None:
        if outputs.coefficients is None or outputs.prototypes is None:
            return
        found, prototypes = shapes[outputs.coefficients], self._ranked(outputs.prototypes, shapes, 4)
        if None not in (found[2], prototypes[1]) and found[2] != prototypes[1]:
            self._fail(outputs.coefficients, found, f"{outputs.prototypes!r} has {prototypes[1]} prototypes")

    def _columns(self, name: str, found: Shape, count: int) -> None:
        """The number of columns of scores. A list of classes names all of them, a mapping those that are a class."""
        classes, last = self._description.classes, self._description.columns[-1]
        if isinstance(classes, dict):
            if count <= last:
                self._fail(
                    name, found, f"there are {count} columns of scores, and class {classes[last]!r} is given column {last}"
                )
        elif count != len(classes):
            self._fail(name, found, f"there are {count} columns of scores, and classes has {len(classes)} names", _NAME_SOME)

    def _ranked(self, name: str, shapes: Mapping[str, Shape], rank: int) -> Shape:
        if len(shapes[name]) != rank:
            self._fail(name, shapes[name], f"{rank} dimensions were expected")
        return shapes[name]

    def _fail(self, name: str, found: Shape, why: str, remedy: str = _REMEDY) -> NoReturn:
        raise ModelError(f"{self._path}: output {name!r} has the shape {shown(found)}: {why}.", remedy, path=self._path)


_NAME_SOME = "Name every column in the description; where some are no class (background), write classes as {column: name}."


def output_names(description: Description) -> list[str]:
    """The outputs that are read, each once."""
    outputs = description.outputs
    named = [outputs.prototypes]
    if isinstance(outputs, Separate):
        named += [outputs.boxes, outputs.scores, outputs.labels, outputs.masks, outputs.coefficients]
    else:
        named.append(outputs.tensor)
    return list(dict.fromkeys(name for name in named if name is not None))
