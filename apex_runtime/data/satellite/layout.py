"""Where the files of a satellite set lie: scenes, their masks, polygons or boxes, and what tells such a folder from others.

A file is paired with its scene by its *key*: the path within its folder without the extension, ``valid/`` read as ``val/``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from apex_runtime.data.findings import Fault, Finding, Findings, Location
from apex_runtime.data.image import EXTENSIONS
from apex_runtime.data.layouts import SATELLITE_FILE, split_name
from apex_runtime.data.satellite.box_files import VOC_FOLDERS, is_box_table, is_voc

# Names of folders, upper or lower case.
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "img_dir", "jpegimages")
MASK_FOLDERS = ("masks", "mask", "labels", "label", "gt", "ann_dir", "segmentationclass")
POLYGON_FOLDERS = ("labels", "vectors", "raw_vector", "geojson")
SPLITS = ("train", "val", "test")

_MASK_SUFFIXES = ("_mask", "_label", "_gt")
_IMAGE_SUFFIXES = ("_sat", "_image", "_img")  # of images that share a folder and a stem with their masks


@dataclass(frozen=True)
class SceneFile:
    """An image: its path within the image folder (forward slashes), where it lies, and the split that its folder stands for."""

    name: str
    path: Path
    split: str = ""

    @property
    def key(self) -> str:
        """What its masks, polygons and boxes are called, without the extension."""
        return key_of(self.name)


def key_of(name: str) -> str:
    """A relative path without its extension, the folder of a split under its usual name."""
    first, *rest = PurePosixPath(name).with_suffix("").parts
    return "/".join([split_name(first), *rest]) if rest else first


def looks_like_satellite(data: Path) -> str:
    """Why a folder is a set of images with mask pictures, polygons or boxes, or nothing."""
    if data.name == SATELLITE_FILE and data.is_file():
        return f"{SATELLITE_FILE} describes a satellite set"
    if not data.is_dir():
        return ""
    if (data / SATELLITE_FILE).is_file():
        return f"{SATELLITE_FILE} describes a satellite set"
    for root in (data, *split_folders(data)):
        images = next(_named(root, IMAGE_FOLDERS), None)
        masks = next((folder for folder in _named(root, MASK_FOLDERS) if _has_pictures(folder)), None)
        if images is not None and masks is not None:
            return f"{images.relative_to(data)}/ and {masks.relative_to(data)}/ are images with masks"
        if images is not None and next(root.glob("**/*.geojson"), None) is not None:
            return f"{images.relative_to(data)}/ and GeoJSON are images with polygons"
    return _looks_flat(data)


def _looks_flat(data: Path) -> str:
    """Images that lie in the folder itself or beside box files."""
    beside = [file for file in data.iterdir() if file.is_file()]
    pictures = [file for file in beside if file.suffix.lower() in EXTENSIONS]
    if any(file.suffix.lower() in (".tif", ".tiff") for file in pictures) and any(f.suffix == ".geojson" for f in beside):
        return "TIFF scenes and GeoJSON are images with polygons"
    if pictures and any(is_voc(file) or is_box_table(file) for file in beside):
        return "images with box files (Pascal VOC or CSV)"
    for folder in (data, *split_folders(data)):
        masks = [file for file in folder.iterdir() if file.suffix.lower() in EXTENSIONS and file.stem.endswith(_MASK_SUFFIXES)]
        if masks:
            return f"{masks[0].relative_to(data)} is a mask beside its image"
    voc = next((folder for folder in _named(data, VOC_FOLDERS) if any(map(is_voc, sorted(folder.glob("*.xml"))[:1]))), None)
    images = next(_named(data, IMAGE_FOLDERS), None)
    return f"{images.name}/ and {voc.name}/ are images with Pascal VOC boxes" if images is not None and voc is not None else ""


def split_folders(root: Path) -> list[Path]:
    """The folders in ``root`` that stand for splits."""
    return [path for path in sorted(root.iterdir()) if path.is_dir() and split_name(path.name) in SPLITS]


def find_scenes(root: Path, images: str, masks: str) -> list[SceneFile]:
    """The images of a set, sorted by name: of the folder ``images`` (else the usual ones, else ``root``), also within splits."""
    places = _places(root, (images,) if images else IMAGE_FOLDERS)
    apart = [path for _, path in _places(root, (masks,) if masks else MASK_FOLDERS)]
    if places:
        found = [pair for prefix, place in places for pair in _pictures(place, prefix, apart)]
    else:  # beside their annotations
        found = [(file.name, file) for file in sorted(root.iterdir()) if file.is_file() and file.suffix.lower() in EXTENSIONS]
        found += [pair for folder in split_folders(root) for pair in _pictures(folder, folder.name, apart)]
    if not apart:  # the masks may lie among them
        among = _masks_among(name for name, _ in found)
        found = [(name, path) for name, path in found if name not in among]
    return sorted((SceneFile(name, path, _folder_split(name)) for name, path in found), key=lambda scene: scene.name)


def find_masks(root: Path, masks: str) -> dict[str, Path]:
    """Mask pictures by their name within the mask folder; where there is none, those among the images called ``*_mask``."""
    places = _places(root, (masks,) if masks else MASK_FOLDERS)
    if places:
        return dict(pair for prefix, place in places for pair in _pictures(place, prefix, ()))
    pictures = dict(
        pair for prefix, place in _places(root, IMAGE_FOLDERS) or [("", root)] for pair in _pictures(place, prefix, ())
    )
    return {name: pictures[name] for name in _masks_among(pictures)}


def _masks_among(names: Iterable[str]) -> list[str]:
    """Pictures that are called like another one with ``_mask`` or ``_label`` at the end."""
    key_of_name = {name: key_of(name) for name in names}
    keys = set(key_of_name.values())
    return [
        name
        for name, key in key_of_name.items()
        for suffix in _MASK_SUFFIXES
        if key.endswith(suffix) and any(key.removesuffix(suffix) + image in keys for image in ("", *_IMAGE_SUFFIXES))
    ]


def pair_masks(scenes: Sequence[SceneFile], masks: dict[str, Path]) -> tuple[dict[str, Path], Findings]:
    """The mask of each scene by key where there is one, and the masks without a scene.

    A mask is named like its scene, or like it with ``_mask`` or ``_label`` at the end, also in place of ``_sat`` or ``_image``.
    """
    by_key: dict[str, Path] = {}
    for name in sorted(masks):
        by_key.setdefault(key_of(name), masks[name])
    pairs = {}
    for scene in scenes:
        stems = dict.fromkeys([scene.key, *(scene.key.removesuffix(suffix) for suffix in _IMAGE_SUFFIXES)])
        names = [stem + suffix for stem in stems for suffix in ("", *_MASK_SUFFIXES)]
        found = next((by_key[name] for name in names if name in by_key), None)
        if found is not None:
            pairs[scene.key] = found
    used = set(pairs.values())
    unused = [path for path in masks.values() if path not in used]
    return pairs, [Finding(Fault.UNUSED_FILE, Location(path), "a mask without an image of its name") for path in unused]


def find_geojson(root: Path, polygons: Sequence[str]) -> dict[str, Path]:
    """GeoJSON files by name: those that ``polygons`` names (files, or folders with all below), else all of the set."""
    if not polygons:
        return {file.relative_to(root).as_posix(): file for file in _visible(root, root.rglob("*.geojson"))}
    found: dict[str, Path] = {}
    for name in polygons:
        place = root / name
        files = _visible(root, place.rglob("*.geojson")) if place.is_dir() else [place]
        found |= {file.relative_to(place if place.is_dir() else root).as_posix(): file for file in files}
    return found


def pair_geojson(scenes: Sequence[SceneFile], files: dict[str, Path]) -> tuple[dict[str, Path], list[Path]]:
    """The GeoJSON of each scene by key, and the files that are named like no scene: those are common to all of them."""
    by_key: dict[str, Path] = {}
    for name, path in sorted(files.items()):
        by_key.setdefault(apart_key(name), path)
    pairs = {scene.key: by_key[scene.key] for scene in scenes if scene.key in by_key}
    return pairs, [path for path in files.values() if path not in set(pairs.values())]


def find_box_files(root: Path) -> tuple[dict[str, Path], list[Path]]:
    """Pascal VOC files by key, and tables of boxes (CSV)."""
    xml = [file for file in _visible(root, root.rglob("*.xml")) if is_voc(file)]
    tables = [file for file in _visible(root, root.rglob("*.csv")) if is_box_table(file)]
    return {apart_key(file.relative_to(root).as_posix()): file for file in xml}, tables


def apart_key(name: str) -> str:
    """The key of a file beside the scenes, or in a folder of annotations of the set or of a split."""
    parts = PurePosixPath(name).parts
    apart = {*IMAGE_FOLDERS, *POLYGON_FOLDERS, *VOC_FOLDERS}
    return key_of("/".join([part for part in parts[:-1] if part.lower() not in apart] + [parts[-1]]))


def _places(root: Path, names: Sequence[str]) -> list[tuple[str, Path]]:
    """The folders called like one of ``names`` that hold pictures: (prefix of the names in it, folder), of the set and splits."""
    found = []
    for parent in (root, *split_folders(root)):
        folder = next((folder for folder in _named(parent, names) if _has_pictures(folder)), None)
        if folder is not None:
            found.append(("" if parent == root else parent.name, folder))
    return found


def _named(parent: Path, names: Sequence[str]) -> Iterator[Path]:
    """The folders in ``parent`` called like one of ``names``, in their order; a path of several folders is taken as it is."""
    beside = {path.name.lower(): path for path in sorted(parent.iterdir()) if path.is_dir()}
    for name in names:
        found = parent / name if "/" in name or (parent / name).is_dir() else beside.get(name.lower(), parent / name)
        if found.is_dir():
            yield found


def _pictures(folder: Path, prefix: str, apart: Iterable[Path]) -> list[tuple[str, Path]]:
    """Images in a folder and below (not in the folders ``apart``), named relative to it after the prefix."""
    found = []
    for file in _visible(folder, folder.rglob("*")):
        if file.suffix.lower() in EXTENSIONS and not any(file.is_relative_to(other) for other in apart):
            found.append((str(PurePosixPath(prefix, file.relative_to(folder).as_posix())), file))
    return found


def _visible(folder: Path, files: Iterable[Path]) -> list[Path]:
    hidden = (file for file in files if file.is_file())
    return sorted(file for file in hidden if not any(part.startswith(".") for part in file.relative_to(folder).parts))


def _folder_split(name: str) -> str:
    first = split_name(name.split("/")[0]) if "/" in name else ""
    return first if first in SPLITS else ""


def _has_pictures(folder: Path) -> bool:
    return any(file.suffix.lower() in EXTENSIONS for file in folder.glob("**/*"))
