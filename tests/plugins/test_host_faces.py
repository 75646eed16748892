"""The lines of the kernels, compiled for this processor: every element is written, and rightly, and no other touched."""

from __future__ import annotations

import re

import numpy as np
import pytest
from kernel_faces import NUMPY_TYPES, TOLERANCES, host_tile_pack, host_tile_unpack_fusion, library

from apex_plugins.kernels.cache import SOURCES
from apex_plugins.kernels.launch import STEPS, THREADS
from apex_plugins.tile_pack.launch import PIXEL_VARIANTS, VARIANTS, Normalisation, kernel_name
from apex_plugins.tile_pack.reference import tile_pack
from apex_plugins.tile_unpack_fusion.reference import tile_unpack_fusion

KINDS = ("f32", "f16", "bf16")
IMAGENET = Normalisation((123.675, 116.28, 103.53), (1 / 58.395, 1 / 57.12, 1 / 57.375))
LARGEST = 448.0  # of e4m3


def of_kind(inputs, kind):
    """The floats in a type, and the same numbers in float64, which is what the reference computes in."""
    narrow = {name: value.astype(NUMPY_TYPES[kind]) if value.dtype.kind == "f" else value for name, value in inputs.items()}
    wide = {name: value.astype(np.float64) if value.dtype != np.int64 else value for name, value in narrow.items()}
    return narrow, wide


def eighth_bits(numbers, scale):
    """The nearest e4m3 of numbers / scale, and half its step, in float64; what is beyond the largest becomes the largest."""
    scaled = np.clip(numbers / scale, -LARGEST, LARGEST)
    exponent = np.floor(np.log2(np.maximum(np.abs(scaled), 2.0**-6)))
    return scaled, 2.0 ** (exponent - 3) / 2


@pytest.mark.parametrize("batch", range(10))
@pytest.mark.parametrize("op", ["tile_pack", "tile_unpack_fusion"])
def test_a_thousand_cases(op, batch, make_case):
    reference, face = {
        "tile_pack": (tile_pack, host_tile_pack),
        "tile_unpack_fusion": (tile_unpack_fusion, host_tile_unpack_fusion),
    }[op]
    for seed in range(100 * batch, 100 * batch + 100):
        inputs, attributes = make_case(op, seed)
        kind = KINDS[seed % 3] if seed % 2 else "f32"
        narrow, wide = of_kind(inputs, kind)
        got = face(narrow, attributes, offset=seed % 5 if seed % 7 == 0 else 0)
        expected = reference(*wide.values(), **attributes)
        assert got.dtype == NUMPY_TYPES[kind]
        if op == "tile_pack":
            np.testing.assert_array_equal(got.astype(np.float64), expected, err_msg=f"seed {seed}")
            continue
        largest = max(float(np.abs(wide[name]).max(initial=1)) for name in ("base", "tiles"))
        error = np.abs(got.astype(np.float64) - expected).max()
        assert error <= TOLERANCES[kind] * largest, (seed, kind, attributes)


@pytest.mark.parametrize("image, tiles", VARIANTS[3:])
def test_pack_converts(image, tiles, make_case):
    for seed in range(60):
        inputs, attributes = make_case("tile_pack", seed)
        inputs["image"] = inputs["image"] * 10.0 ** (seed % 7 - 2)  # up to what fp16 cannot hold well and e4m3 not at all
        narrow, wide = of_kind(inputs, image)
        scale = (1.0, 0.37, 20.0)[seed % 3] if tiles == "e4m3" else 1.0
        expected = tile_pack(*wide.values(), **attributes)
        got = host_tile_pack(narrow, attributes, out=tiles, offset=seed % 2, scale=scale).astype(np.float64)
        if tiles == "e4m3":
            wanted, half_step = eighth_bits(expected, np.float64(np.float32(scale)))
            assert (np.abs(got - wanted) <= half_step * 1.0001).all(), seed
        else:
            np.testing.assert_array_equal(got, expected.astype(np.float16).astype(np.float64))


@pytest.mark.parametrize("tiles", [tiles for _, tiles in PIXEL_VARIANTS])
def test_pack_normalises_pixels_and_then_pads_with_zeros(tiles, make_case):
    for seed in range(40):
        inputs, attributes = make_case("tile_pack", seed)
        pixels = np.random.default_rng(seed).integers(0, 256, inputs["image"].shape, np.uint8)
        mean, factor = (np.array(values)[:, None, None] for values in (IMAGENET.mean, IMAGENET.factor))
        expected = tile_pack((pixels - mean) * factor, inputs["ids"], inputs["levels"], **attributes)
        more = {"normalisation": IMAGENET} | ({"scale": 0.01} if tiles == "e4m3" else {})
        feeds = inputs | {"image": np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))}
        got = host_tile_pack(feeds, attributes, out=tiles, offset=seed % 2, **more).astype(np.float64)
        outside = tile_pack(np.ones(pixels.shape), inputs["ids"], inputs["levels"], **attributes) == 0
        assert not got[outside].any()
        if tiles == "e4m3":
            wanted, half_step = eighth_bits(expected, 0.01)
            assert (np.abs(got - wanted) <= half_step * 1.0001).all(), seed
        else:
            np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCES[tiles] * 3)


def test_pack_copies_what_is_no_number(make_case):
    inputs, attributes = make_case("tile_pack", 0)
    for kind in KINDS:
        image = inputs["image"].astype(NUMPY_TYPES[kind])
        image.reshape(-1)[::3] = np.inf
        image.reshape(-1)[1::7] = np.nan
        got = host_tile_pack(inputs | {"image": image}, attributes)
        expected = tile_pack(image.astype(np.float64), inputs["ids"], inputs["levels"], **attributes)
        np.testing.assert_array_equal(got.astype(np.float64), expected)


@pytest.mark.parametrize("image, tiles", [("f16", "e4m3"), ("f32", "f16"), ("f32", "e4m3")])
def test_every_number_of_16_bits_is_converted_as_numpy_does(image, tiles):
    """Ties, subnormal numbers, infinity, NaN: all 65 536 patterns, in float32 as the upper half, with ties below."""
    patterns = np.arange(65536, dtype=np.uint16)
    if image == "f16":
        numbers = patterns.view(np.float16)
    else:
        low = np.array([0, 1, 0x1000, 0x7FFF, 0x8000, 0xFFFF], np.uint32)
        numbers = ((patterns.astype(np.uint32) << 16)[:, None] | low).reshape(-1).view(np.float32)
    numbers = numbers[: numbers.size // 4096 * 4096].reshape(-1, 1, 64, 64)
    ids = np.zeros((len(numbers), 1), np.int64)
    got = host_tile_pack({"image": numbers, "ids": ids, "levels": ids}, {"tile": 64, "halo": 0}, out=tiles)[:, 0]
    with np.errstate(all="ignore"):
        limit = LARGEST if tiles == "e4m3" else np.inf
        expected = np.clip(numbers.astype(np.float32), -limit, limit).astype(NUMPY_TYPES[tiles])
    kinds = got.astype(np.float32), expected.astype(np.float32)
    np.testing.assert_array_equal(*kinds)
    np.testing.assert_array_equal(*(np.signbit(item[~np.isnan(item)]) for item in kinds))


@pytest.mark.parametrize("kind", KINDS)
def test_unpack_touches_the_cells_of_the_tiles_and_no_other(kind, make_case):
    for seed in range(40):
        inputs, attributes = make_case("tile_unpack_fusion", seed)
        inputs["tiles"][:], inputs["alpha"][:] = 1000, 1
        narrow, _ = of_kind(inputs, kind)
        merged = host_tile_unpack_fusion(narrow, attributes)
        covered = tile_unpack_fusion(
            np.zeros(inputs["base"].shape), inputs["tiles"], inputs["ids"], inputs["levels"], inputs["alpha"], **attributes
        )
        np.testing.assert_array_equal(merged[covered == 0], narrow["base"][covered == 0])
        assert (merged[covered != 0].astype(np.float64) > 900).all()


@pytest.mark.parametrize("cells", [1, 2, 3, 4, 6, 8, 12, 16, 24])
@pytest.mark.parametrize("kind", KINDS)
def test_unpack_of_every_run_length(kind, cells):
    """Rows of a tile that are, and are not, multiples of 16 bytes; more cells than one block of threads takes."""
    rng = np.random.default_rng(cells)
    ids = np.array([[4, 0], [5, 2]])
    inputs = {
        "base": rng.standard_normal((2, 33, 2 * cells, 3 * cells)),
        "tiles": rng.standard_normal((2, 2, 33, cells, cells)),
        "ids": ids,
        "levels": ids * 0,
        "alpha": rng.random((2, 2, 1, cells, cells)),
    }
    narrow, wide = of_kind(inputs, kind)
    expected = tile_unpack_fusion(*wide.values(), tile=8 * cells)
    for offset in (0, 1):
        got = host_tile_unpack_fusion(narrow, {"tile": 8 * cells}, offset=offset).astype(np.float64)
        np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCES[kind] * 5)


def test_the_kernels_of_large_tiles():
    """Many blocks for each plane."""
    image = np.random.default_rng(0).random((1, 2, 256, 512)).astype(np.float32)
    ids = np.array([[1, 0]])
    got = host_tile_pack({"image": image, "ids": ids, "levels": ids * 0}, {"tile": 256, "halo": 32})
    np.testing.assert_array_equal(got, tile_pack(image, ids, ids * 0, tile=256, halo=32))


@pytest.mark.parametrize("scale", [0.0, -1.0, 1e-30, float("inf"), float("nan")])
def test_a_scale_that_is_none(scale):
    ids, image = np.zeros((1, 1), np.int64), np.ones((1, 3, 8, 8), np.float32)
    with pytest.raises(ValueError, match="scale must be in"):
        host_tile_pack({"image": image, "ids": ids, "levels": ids}, {"tile": 8, "halo": 0}, out="e4m3", scale=scale)


def test_ids_outside_the_grid_read_and_write_nothing():
    """The reference refuses them; the kernels cannot, and must not leave the image or the map."""
    ids = np.array([[-(2**40), -7, 4, 2**62, -1]])
    image = np.ones((1, 3, 16, 16), np.float32)
    got = host_tile_pack({"image": image, "ids": ids, "levels": ids * 0}, {"tile": 8, "halo": 0})
    assert not got.any()
    base = np.full((1, 2, 2, 2), 3.0, np.float32)
    feeds = {"base": base, "tiles": np.ones((1, 5, 2, 1, 1), np.float32), "ids": ids, "levels": ids * 0}
    feeds["alpha"] = np.ones((1, 5, 1, 1, 1), np.float32)
    assert (host_tile_unpack_fusion(feeds, {"tile": 8}) == 3).all()


def test_a_level_without_tiles_launches_nothing():
    none = np.zeros((2, 0), np.int64)
    image = np.ones((2, 3, 16, 16), np.float32)
    assert host_tile_pack({"image": image, "ids": none, "levels": none}, {"tile": 8, "halo": 8}).shape == (2, 0, 3, 24, 24)


def test_the_launches_and_the_sources_name_the_same_things():
    text = (SOURCES / "kernels" / "runs.h").read_text()
    assert int(re.search(r"THREADS = (\d+)", text)[1]) == THREADS and int(re.search(r"STEPS = (\d+)", text)[1]) == STEPS
    named = set(re.findall(r"^\w+\((apex_\w+),", (SOURCES / "tile_pack" / "kernel.cu").read_text(), re.MULTILINE))
    assert named == {kernel_name(*types) for types in VARIANTS + PIXEL_VARIANTS}
    assert all(hasattr(library("tile_pack"), name) for name in named)
