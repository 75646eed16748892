"""What defines a network: its size and its routing grid. Stored in every checkpoint and every exported file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from apex_plugins.spec import MAX_DEPTH
from apex_runtime.model_info import Category

STRIDES = (8, 16, 32)
MASK_STRIDE = 4
DEFAULT_RATIOS: dict[int, tuple[float, ...]] = {
    1: (),
    2: (1.0, 2.0),
    3: (1.0, 2.0, 4.0),
}  # half of the children of what was chosen

# Widths per size, all multiples of 16 so that tensor cores and vector units stay full: peripheral (strides 8, 16, 32),
# foveal (strides 2, 4, 8), shared feature width, blocks at foveal strides 4 and 8.
SIZES: dict[str, dict[str, Any]] = {
    "nano": {"peripheral": (32, 64, 128), "foveal": (16, 48, 96), "features": 64, "foveal_blocks": (2, 2)},
    "small": {"peripheral": (48, 96, 192), "foveal": (32, 64, 128), "features": 96, "foveal_blocks": (2, 3)},
    "base": {"peripheral": (64, 128, 256), "foveal": (32, 96, 192), "features": 128, "foveal_blocks": (2, 4)},
}


class ModelConfig(BaseModel):
    """Architecture of one detector. ``tile`` and ``halo`` are input pixels; both shape the compute, neither the weights.

    ``depth`` levels of tiles, the finest at full resolution, every coarser one at half of that of the next; ``ratio`` says how a
    budget is shared among them, coarsest first (numbers of tiles, to scale); it is empty at depth 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: Literal["nano", "small", "base"] = "nano"
    classes: tuple[Category, ...] = (Category(id=1, name="object"),)
    tile: int = Field(default=64, ge=32, le=512)
    halo: int = Field(default=8, ge=0, le=256)
    max_detections: int = Field(default=500, ge=1, le=3840)
    prototypes: int = Field(default=32, ge=16, le=128, multiple_of=16)
    scan_heads: int = Field(default=4, ge=1, le=16)
    scan_state: int = Field(default=16, ge=1, le=128)
    mask_quality: bool = False  # a head that predicts the IoU of each mask; decoding does not read it
    depth: int = Field(default=1, ge=1, le=MAX_DEPTH)
    ratio: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _usual_ratio(cls, values: Any) -> Any:
        """Written out, so that a file keeps its ratio should the default change."""
        depth = values.get("depth", 1) if isinstance(values, dict) else None
        if isinstance(depth, int) and not values.get("ratio"):
            return values | {"ratio": DEFAULT_RATIOS.get(depth, ())}
        return values

    @model_validator(mode="after")
    def _one_share_per_level(self) -> ModelConfig:
        if len(self.ratio) != len(DEFAULT_RATIOS[self.depth]):
            raise ValueError(f"ratio {list(self.ratio)} does not fit depth {self.depth}: one share per level, none at depth 1")
        return self

    @model_validator(mode="after")
    def _sides_fit_the_strides(self) -> ModelConfig:
        if self.tile % max(STRIDES):
            raise ValueError(f"tile {self.tile} is not a multiple of {max(STRIDES)}")
        if self.halo % STRIDES[0]:
            raise ValueError(f"halo {self.halo} is not a multiple of {STRIDES[0]}")
        if not self.classes:
            raise ValueError("a model needs at least one class")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What a network does not have is not written, as before there was such a thing: old files stay equal to new ones, bit by
        bit."""
        values: dict[str, Any] = write(self)
        off = ([] if self.mask_quality else ["mask_quality"]) + ([] if self.depth > 1 else ["depth", "ratio"])
        return {key: value for key, value in values.items() if key not in off}

    @property
    def scales(self) -> tuple[int, ...]:
        """Image pixels per pixel that the foveal stream sees, a side, of every level: (4, 2, 1) at depth 3."""
        return tuple(1 << (self.depth - 1 - level) for level in range(self.depth))

    @property
    def peripheral_widths(self) -> tuple[int, int, int]:
        """Channels of the peripheral backbone at strides 8, 16, 32."""
        return SIZES[self.size]["peripheral"]

    @property
    def foveal_widths(self) -> tuple[int, int, int]:
        """Channels of the foveal backbone at strides 2, 4, 8."""
        return SIZES[self.size]["foveal"]

    @property
    def foveal_blocks(self) -> tuple[int, int]:
        """Residual blocks of the foveal backbone at strides 4 and 8."""
        return SIZES[self.size]["foveal_blocks"]

    @property
    def features(self) -> int:
        """Channels C of the pyramid, the merged map and the heads."""
        return SIZES[self.size]["features"]

    @property
    def coarse_tile(self) -> int:
        """Image pixels a side that a tile of level 0 covers: ``tile`` at depth 1."""
        return self.tile * self.scales[0]

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the tiles of level 0 of an input of height x width pixels.

        Raises ValueError when the sides are not multiples of such a tile.
        """
        side = self.coarse_tile
        if height <= 0 or width <= 0 or height % side or width % side:
            raise ValueError(f"input {height}x{width} is not a multiple of the tile ({side})")
        return height // side, width // side

    def counts(self, height: int, width: int) -> tuple[int, ...]:
        """How many tiles every level has; a tile has four children. Raises ValueError as ``grid`` does."""
        rows, cols = self.grid(height, width)
        return tuple(rows * cols * 4**level for level in range(self.depth))
