"""How often the tiles of a clip change with and without hysteresis: the flip rate that ``apex-rt infer`` reports, per clip.

    python bench/video_clips.py tennis=clip.mp4 'street=images/val/street_*.jpg' --output bench/evidence/video-clips.json

A pattern stands for the frames of one clip, in the order of the numbers in their names. The shipped engine answers: this is about
which tiles are chosen, not about what is found.
"""

from __future__ import annotations

import glob
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from evidence import write_evidence


@click.command()
@click.argument("clips", nargs=-1, required=True, metavar="NAME=FILE|NAME=PATTERN ...")
@click.option("--budget", default="0.25", show_default=True)
@click.option("--bonus", "bonuses", multiple=True, default=("0", "0.35"), show_default=True)
@click.option("--output", type=click.Path(path_type=Path))
def main(clips: tuple[str, ...], budget: str, bonuses: tuple[str, ...], output: Path | None) -> None:
    """Run every clip with every bonus."""
    rows = []
    for clip in clips:
        name, _, source = clip.partition("=")
        for bonus in bonuses:
            rows.append({"clip": name, "hysteresis": float(bonus)} | flips(source, budget, bonus))
            click.echo(f"{name}, {bonus}: {rows[-1]['flip_rate']}")
    if output is not None:
        write_evidence(output, {"budget": budget, "engine": "engines/nuclei-nano", "rows": rows})


def flips(source: str, budget: str, bonus: str) -> dict[str, Any]:
    """Frames, mean tiles and flip rate of one clip: a file, or the pattern of its frames."""
    with tempfile.TemporaryDirectory() as made:
        folder, options = Path(made), ["--budget", budget, "--hysteresis", bonus, "--window", "none", "--save", "none"]
        if not Path(source).is_file():
            (folder / "clip").mkdir()
            for frame in sorted(glob.glob(source)):
                (folder / "clip" / Path(frame).name).symlink_to(Path(frame).resolve())
            source, options = str(folder / "clip"), [*options, "--video"]
        words = [sys.executable, "-m", "apex_runtime.cli.main", "infer", source, *options, "--output", str(folder / "out")]
        subprocess.run(words, check=True, capture_output=True)
        found = json.loads((folder / "out" / "summary.json").read_text(encoding="utf-8"))["video"]
    return {key: found[key] for key in ("frames", "mean_tiles", "flip_rate")}


if __name__ == "__main__":
    main()
