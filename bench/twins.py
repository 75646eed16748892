"""The twins of a checkpoint as ONNX files with the inputs of its engine: one that looks at no tile, one that routes nothing.

python bench/twins.py engines/nuclei-nano/checkpoint.pt --size 512 --output twins/
apex-rt bench frontier engines/nuclei-nano --data DIR --twin peripheral=twins/peripheral.onnx --twin dense=twins/dense.onnx
"""

from __future__ import annotations

from pathlib import Path

import click
import onnx
from dense import densify
from measured import read_size
from peripheral_only import without_tiles

from apex_train.checkpoint import load_model
from apex_train.export.trace import trace_detector
from apex_train.model.info import model_info


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.option("--size", default="512", show_default=True, callback=read_size, help="One side, or HEIGHTxWIDTH.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="A folder.")
def main(checkpoint: Path, size: tuple[int, int], output: Path) -> None:
    """Write peripheral.onnx and dense.onnx of CHECKPOINT."""
    model = load_model(checkpoint)
    output.mkdir(parents=True, exist_ok=True)
    for name, twin in (("peripheral", without_tiles(model)), ("dense", densify(model))):
        onnx.save(trace_detector(twin, model_info(model, *size)), output / f"{name}.onnx")
        click.echo(output / f"{name}.onnx")


if __name__ == "__main__":
    main()
