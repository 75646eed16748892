"""Every form of ``data.yaml`` that is met in the wild, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from apex_runtime.data.read_yaml import MAX_BYTES
from apex_runtime.data.yolo.description import load_description, locate
from apex_runtime.errors import DataError, UsageError


def described(folder: Path, text: str, name: str = "data.yaml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("name", ["data.yaml", "data.yml", "dataset.yaml"])
def test_names_of_the_file(tmp_path: Path, name: str) -> None:
    described(tmp_path, "names: [a]\ntrain: images", name)
    for data in (tmp_path, tmp_path / name):
        assert load_description(data).file == tmp_path / name


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: [car, 'no']", ("car", "no")),
        ("names: {0: car, 1: bus}", ("car", "bus")),
        ("names: {2: c, 0: a, 1: b}", ("a", "b", "c")),
        ("names: {'0': a, '1': b}\nnc: 2", ("a", "b")),
        ("names: [0, 1.5]", ("0", "1.5")),
        ("nc: 1\nnames: ['Ä €']", ("Ä €",)),
    ],
)
def test_classes(tmp_path: Path, text: str, names: tuple[str, ...]) -> None:
    folder = tmp_path
    (folder / "data.yaml").write_text(text, encoding="utf-8-sig")
    assert load_description(folder).names == names


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("names: {0: a, 2: b}", "class index 1"),
        ("names: {1: a, 2: b}", "class index 0"),
        ("names: {a: 0}", "not class indices"),
        ("names: {0.5: a}", "not class indices"),
        ("names: {0: a, '0': b}", "not class indices"),
        ("names: [car, no]", "not text, at index 1"),
        ("names: [car, [a]]", "not text, at index 1"),
        ("names: []", "no names"),
        ("names: car", "no names"),
        ("nc: 2", "no names"),
        ("names: [a, b]\nnc: 3", "nc does not fit the 2 names, it is 3"),
        ("names: [a]\nnc: [1]", "nc does not fit"),
        ("names: [a]\ntrain: 3", "neither a path"),
        ("names: [a]\ntrain: [images, 3]", "neither a path"),
        ("names: [a]\nval: x\nvalid: y", "val is described twice"),
        ("names: [a]\npath: [x]", "path is not text"),
        ("names: [a]\nkpt_shape: [17, 3]", "key points"),
        ("names: [a", "not valid YAML"),
        ("train: a\nnames: [a\nval: b", "line 3, column 4: expected"),
        ("- a", "not a description"),
        ("", "not a description"),
        ("names: !!python/object:os.system [a]", "not valid YAML"),
        ("names: [" + "9" * 5000 + "]", "not valid YAML"),
        ("[" * 100_000, "levels of lists"),
        ("a: &a [x, x]\nb: [*a, *a]", "aliases"),
        ("#" * (MAX_BYTES + 1), "larger than"),
    ],
)
def test_what_is_refused_says_which_file_and_why(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        load_description(described(tmp_path, text))
    assert str(tmp_path / "data.yaml") in caught.value.message and caught.value.remedy
    assert len(caught.value.message) < 500


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_bytes(b"names: [\xff\xfe]")
    with pytest.raises(DataError, match="not valid YAML"):
        load_description(tmp_path)


def test_no_description_is_wrong_usage(tmp_path: Path) -> None:
    for data in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UsageError, match="no description"):
            load_description(data)


def test_splits_and_their_aliases(tmp_path: Path) -> None:
    text = "names: [a]\ntrain: [a, b.txt]\nvalidation: c\ntest:\nextra: d\ntrain2017: x\n1: y\n"
    assert load_description(described(tmp_path, text)).splits == {"train": ("a", "b.txt"), "val": ("c",)}


def test_path_absolute_relative_and_moved(tmp_path: Path) -> None:
    here = tmp_path / "moved" / "set"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for written, roots in [
        (str(elsewhere), (elsewhere, here)),
        ("../../elsewhere", (elsewhere, here)),
        (".", (here,)),
        ("", (here,)),
        ("/elsewhere/then/set", (here,)),
        ("datasets/set", (here,)),
        ("C:\\\\data\\\\set", (here,)),
    ]:
        assert load_description(described(here, f'names: [a]\npath: "{written}"')).roots == roots


@pytest.mark.parametrize(
    ("entry", "place"),
    [
        ("images/train", "images/train"),
        ("./images/train", "images/train"),
        ("images\\train", "images/train"),
        ("../images/train", "images/train"),
        ("/content/set/images/train", "images/train"),
        ("C:\\data\\set\\images\\train", "images/train"),
        ("images/val", None),
        ("other/images/train", None),  # relative and absent: nothing says that it has moved
        ("/content/none", None),
        ("a" * 10_000, None),
        ("/b/" + "a" * 10_000, None),
    ],
)
def test_where_an_entry_is(tmp_path: Path, entry: str, place: str | None) -> None:
    (tmp_path / "images" / "train").mkdir(parents=True)
    assert locate(entry, [tmp_path], Path.is_dir) == (None if place is None else tmp_path / place)


def test_the_end_of_a_path_is_as_long_as_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    assert locate("/old/images/a.png", [tmp_path], Path.is_file) == tmp_path / "a.png"
    assert locate("/old/images/a.png", [tmp_path], Path.is_file, least=2) is None
