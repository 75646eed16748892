"""Random light and colour; geometry untouched."""

from __future__ import annotations

import math

import cv2
import numpy as np

from apex_train.config import AugmentConfig

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def relight(image: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """``image`` uint8 [h,w,3] in another light: hue and saturation as one matrix; gamma, contrast, brightness as one table.

    Every pixel is changed alone and alike, and grey stays grey.
    """
    mixing = colour_matrix(math.radians(rng.uniform(-config.hue, config.hue)), 1 + rng.uniform(-1, 1) * config.saturation)
    exponent = math.exp(rng.uniform(-config.gamma, config.gamma))
    gain = 1 + rng.uniform(-config.contrast, config.contrast)
    shift = rng.uniform(-config.brightness, config.brightness)
    if not np.allclose(mixing, np.eye(3)):
        image = cv2.transform(image, mixing)
    return cv2.LUT(image, light_table(exponent, gain, shift))


def colour_matrix(angle: float, saturation: float) -> np.ndarray:
    """The matrix [3,3] on RGB that turns the hue by ``angle`` (radians) about the axis of the greys and scales the distance from
    the grey of the same luma by ``saturation``."""
    cos, sin = math.cos(angle), math.sin(angle)
    axis = math.sqrt(1 / 3)
    cross = axis * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    turned = cos * np.eye(3) + sin * cross + (1 - cos) / 3 * np.ones((3, 3))
    grey = np.tile(LUMA, (3, 1))
    return (grey + saturation * (np.eye(3) - grey)) @ turned


def light_table(exponent: float, gain: float, shift: float) -> np.ndarray:
    """uint8 [256]: each value to the power ``exponent``, times ``gain`` about mid-grey, plus ``shift``, in shares of white."""
    values = (np.arange(256) / 255) ** exponent
    return np.clip(255 * ((values - 0.5) * gain + 0.5 + shift), 0, 255).round().astype(np.uint8)
