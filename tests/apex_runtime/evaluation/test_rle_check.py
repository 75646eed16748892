"""All at once must say what one after the other says."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from apex_runtime.evaluation.rle_check import sound_rles
from apex_runtime.postprocess.rle import compress_counts, decompress_counts


def alone(text: bytes, pixels: int) -> bool:
    try:
        counts = decompress_counts(text)
    except ValueError:
        return False
    return counts.size > 0 and counts.min() >= 0 and counts.max() <= pixels and int(counts.sum()) == pixels


def masks(rng: np.random.Generator, number: int) -> list[tuple[bytes, int]]:
    shapes = rng.integers(1, 30, (number, 2)).tolist()
    bits = [np.asfortranarray(rng.random((h, w)) < rng.random(), np.uint8) for h, w in shapes]
    return [(coco_mask.encode(each)["counts"], each.size) for each in bits]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12))
def test_sound_and_damaged_texts(seed: int, number: int) -> None:
    rng = np.random.default_rng(seed)
    sound = masks(rng, number)
    assert sound_rles([text for text, _ in sound], [pixels for _, pixels in sound]).all()
    damaged = []
    for text, pixels in sound:
        damage = bytearray(text)
        for _ in range(int(rng.integers(0, 3))):
            at = int(rng.integers(0, len(damage) + 1))
            damage[at : at + int(rng.integers(0, 3))] = rng.integers(40, 120, int(rng.integers(0, 2))).astype(np.uint8).tobytes()
        damaged.append((bytes(damage), pixels))
    found = sound_rles([text for text, _ in damaged], [pixels for _, pixels in damaged])
    assert found.tolist() == [alone(*each) for each in damaged]


def test_text_bytes_long_runs_and_none() -> None:
    huge = compress_counts(np.array([5, 2**31 - 6, 1]))
    assert sound_rles([huge, huge.encode(), "é", ""], [2**31, 2**31, 5, 0]).tolist() == [True, True, False, False]
    assert sound_rles([], []).shape == (0,)
