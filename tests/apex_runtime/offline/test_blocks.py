"""Every image that is left to do is in one block; a block has the same name whoever plans it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apex_runtime.offline.blocks import LARGEST, Block, Image, is_url, plan_blocks


def images(count: int) -> list[Image]:
    return [Image(f"{number:04}.png", number, f"/data/{number:04}.png", f"{number:04}.png") for number in range(1, count + 1)]


@given(st.integers(0, 300), st.sets(st.integers(1, 300)), st.integers(1, 9), st.one_of(st.none(), st.integers(1, 70)))
def test_what_is_left_is_in_one_block_each(count: int, done: set[int], workers: int, size: int | None) -> None:
    every = images(count)
    names = {f"{number:04}.png" for number in done}
    blocks = plan_blocks(every, names, workers, size, ())
    planned = [image for block in blocks for image in block.images]
    assert planned == [image for image in every if image.name not in names]
    assert all(0 < len(block.images) <= (size or LARGEST) for block in blocks)
    assert len({block.key for block in blocks}) == len(blocks)
    assert [block.key for block in blocks] == sorted(block.key for block in blocks), "shards sort as their images do"


def test_few_images_go_to_all_workers() -> None:
    assert len(plan_blocks(images(40), (), 5, None, ())) == 20
    assert len(plan_blocks(images(10_000), (), 5, None, ())) == -(-10_000 // LARGEST)


def test_a_block_keeps_its_name_on_the_way_and_gets_another_for_other_images() -> None:
    (block,) = plan_blocks(images(3), (), 1, 3, ())
    assert Block.from_json(block.to_json()) == block and Block.from_json(block.to_json()).key == block.key
    others = [plan_blocks(images(4), (), 1, 3, ())[0], *block.singles()]
    assert others[0].key == block.key and len({one.key for one in others}) == 4
    moved = Block((Image("0001.png", 1, "/elsewhere/0001.png", "0001.png"), *block.images[1:]))
    assert moved.key != block.key


def test_a_name_that_is_not_utf8_survives_the_way() -> None:
    block = Block((Image("caf\udce9.png", 1, "/in/caf\udce9.png", "in/caf\udce9.png"),))
    assert Block.from_json(block.to_json()) == block and block.key


def test_a_block_knows_who_else_wants_the_name_of_its_files() -> None:
    names = ["a.jpg", "a.png", "b.png", "b.png.txt.png", "c.png"]
    every = [Image(name, number, f"/{name}", name) for number, name in enumerate(names, 1)]
    kin = {block.images[0].name: block.kin for block in plan_blocks(every, (), 1, 1, {"yolo"})}
    (together,) = plan_blocks(every, (), 1, 9, {"yolo"})
    assert {single.images[0].name: single.kin for single in together.singles()} == kin
    assert kin["a.jpg"] == ("a.png",) and kin["a.png"] == ("a.jpg",) and kin["c.png"] == ()
    assert all(block.kin == () for block in plan_blocks(every, (), 1, 1, {"masks"}))


@pytest.mark.parametrize(("text", "answer"), [("s3://bucket/a.png", True), ("file:///a.png", True), ("/a.png", False)])
def test_urls(text: str, answer: bool) -> None:
    assert is_url(text) is answer and not is_url("://a") and not is_url("s3://")
