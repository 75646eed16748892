"""What defines a network: its size and its routing grid. Stored in every checkpoint and every exported file."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from apex_runtime.model_info import Category

STRIDES = (8, 16, 32)
MASK_STRIDE = 4

# Widths per size, all multiples of 16 so that tensor cores and vector units stay full: peripheral (strides 8, 16, 32),
# foveal (strides 2, 4, 8), shared feature width, blocks at foveal strides 4 and 8.
SIZES: dict[str, dict[str, Any]] = {
    "nano": {"peripheral": (32, 64, 128), "foveal": (16, 48, 96), "features": 64, "foveal_blocks": (2, 2)},
    "small": {"peripheral": (48, 96, 192), "foveal": (32, 64, 128), "features": 96, "foveal_blocks": (2, 3)},
    "base": {"peripheral": (64, 128, 256), "foveal": (32, 96, 192), "features": 128, "foveal_blocks": (2, 4)},
}


class ModelConfig(BaseModel):
    """Architecture of one detector. ``tile`` and ``halo`` are input pixels; both shape the compute, neither the weights."""

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
        """A network without the head is written as before there was one: old files stay equal to new ones, bit by bit."""
        values: dict[str, Any] = write(self)
        return values if self.mask_quality else {key: value for key, value in values.items() if key != "mask_quality"}

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

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Tile rows and columns of an input of height x width pixels; ValueError when the sides are not multiples of the tile."""
        if height <= 0 or width <= 0 or height % self.tile or width % self.tile:
            raise ValueError(f"input {height}x{width} is not a multiple of the tile ({self.tile})")
        return height // self.tile, width // self.tile
