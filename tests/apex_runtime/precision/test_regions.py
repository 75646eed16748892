"""Every node of an exported graph has its region. The reference is what the file says elsewhere: weights bear the names of
their modules."""

from __future__ import annotations

import onnx
import pytest

from apex_runtime.errors import ModelError
from apex_runtime.precision.pinned import PINNED, check_regions
from apex_runtime.precision.regions import NO_SCOPE, SCOPE_KEY, members, regions_of

# Start of a weight's name -> regions in which a convolution or a product with it may be.
HOMES = {
    "detector.peripheral": {"peripheral", "entrance"},
    "detector.foveal": {"foveal", "entrance"},
    "detector.context": {"context"},
    "detector.gate": {"gate"},
    "detector.router": {"router"},
    "detector.neck": {"neck", "glance"},
    "detector.masks": {"prototypes"},
    **{
        f"detector.heads.{i}.{name}": {"scores", "glance"}
        for i in range(3)
        for name in ("class_tower", "one_tower", "one.", "many")
    },
    **{f"detector.heads.{i}.{name}": {"boxes"} for i in range(3) for name in ("shape_tower", "ltrb")},
    **{f"detector.heads.{i}.coefficients": {"coefficients"} for i in range(3)},
}


def producer(model: onnx.ModelProto, tensor: str) -> str:
    return next(node.name for node in model.graph.node if tensor in node.output)


def test_every_node_has_a_region_and_no_pinned_one_is_empty(model: onnx.ModelProto) -> None:
    regions = regions_of(model)
    assert set(regions) == {node.name for node in model.graph.node}
    assert set(PINNED) < set(regions.values())
    check_regions(regions)
    assert sum(map(len, members(regions).values())) == len(model.graph.node)


def test_regions_agree_with_the_names_of_weights(model: onnx.ModelProto) -> None:
    regions, checked = regions_of(model), 0
    for node in model.graph.node:
        for weight in (name for name in node.input if name.startswith("detector.") and not name.startswith("detector.pixel")):
            (home,) = [found for start, found in HOMES.items() if weight.startswith(start)]
            assert regions[node.name] in home, (node.name, weight)
            checked += 1
    assert checked > 140


def test_the_entrance_ends_with_the_convolutions_that_read_three_channels(model: onnx.ModelProto) -> None:
    regions = regions_of(model)
    sizes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    first = {node.name for node in convolutions if sizes[node.input[1]][1] == 3}
    assert len(first) == 2
    assert {node.name for node in convolutions if regions[node.name] == "entrance"} == first


def test_neck_and_heads_are_told_apart_by_who_waits_for_them(model: onnx.ModelProto) -> None:
    regions = regions_of(model)
    weight = "detector.neck.down4.0.weight"
    assert [regions[node.name] for node in model.graph.node if weight in node.input] == ["glance", "neck"]


@pytest.mark.parametrize(
    ("tensor", "region"),
    [
        ("utilities", "router"),
        ("tile_ids", "selection"),
        ("tile_levels", "selection"),
        ("boxes", "decode"),
        ("scores", "decode"),
        ("mask_prototypes", "prototypes"),
        ("tile_pack", "entrance"),
        ("tile_ssm_scan", "scan"),
        ("tile_unpack_fusion", "fusion"),
    ],
)
def test_where_the_known_tensors_come_from(model: onnx.ModelProto, tensor: str, region: str) -> None:
    assert regions_of(model)[producer(model, tensor)] == region


def test_a_graph_without_scopes_says_so_and_cannot_be_pinned(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        del node.metadata_props[:]
    regions = regions_of(model)
    assert set(regions.values()) == {NO_SCOPE}
    with pytest.raises(ModelError, match="router") as caught:
        check_regions(regions)
    assert caught.value.code == "pinned_region_empty" and "apex-train export" in caught.value.remedy


@pytest.mark.parametrize("value", ["", "[", "3", "[" * 5000, "{'a': 1}"])
def test_a_damaged_scope_counts_as_none(model: onnx.ModelProto, value: str) -> None:
    name = producer(model, "utilities")
    next(node for node in model.graph.node if node.name == name).metadata_props[0].CopyFrom(
        onnx.StringStringEntryProto(key=SCOPE_KEY, value=value)
    )
    assert regions_of(model)[name] == NO_SCOPE


def test_nodes_must_have_names_of_their_own(model: onnx.ModelProto) -> None:
    model.graph.node[5].name = model.graph.node[6].name
    with pytest.raises(ModelError, match="two of one name"):
        regions_of(model)
