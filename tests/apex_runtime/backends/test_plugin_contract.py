"""The contract of a plugin, clause by clause, against a registry of our own; NVIDIA's is asked in tests/plugins."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from apex_plugins.catalogue import FOLDERS, folder_of, specs
from apex_runtime.backends.op_calls import OpCall
from apex_runtime.backends.plugin_contract import call_problem, registry_problem

FIELD_TYPES = {int: "INT64", float: "FLOAT64"}
SPEC = specs()["tile_pack"]


def creator(name: str = "TilePack", version: str = "1", namespace: str = "apex", **fields: str) -> SimpleNamespace:
    described = [SimpleNamespace(name=field, type=SimpleNamespace(name=kind)) for field, kind in fields.items()]
    return SimpleNamespace(name=name, plugin_version=version, plugin_namespace=namespace, field_names=described)


def registry(*creators: Any) -> SimpleNamespace:
    return SimpleNamespace(all_creators=list(creators))


FITS = creator(tile="INT64", halo="INT32")


def test_every_op_has_a_folder_and_no_other_name_has() -> None:
    assert [folder_of(spec.name) for spec in specs().values()] == list(FOLDERS)
    assert folder_of("Relu") is None


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_creator_that_says_what_the_op_says_fits(folder: str) -> None:
    spec = specs()[folder]
    fields = {name: FIELD_TYPES[kind] for name, kind in spec.attributes.items()}
    assert registry_problem(registry(creator("Other"), creator(spec.name, str(spec.version), **fields)), spec) is None


@pytest.mark.parametrize(
    ("there", "code", "words"),
    [
        ([], "plugin_not_registered", "no plugin of that name"),
        ([creator("Tilepack")], "plugin_not_registered", "no plugin of that name"),
        ([creator(namespace="")], "plugin_namespace_mismatch", "in the namespace '', not in 'apex'"),
        ([creator(version="2"), creator(version="0")], "plugin_version_mismatch", "as version 0, 2, expected 1"),
        ([creator(tile="INT64")], "plugin_fields_mismatch", "halo is missing"),
        ([creator(tile="INT64", halo="INT64", pad="INT32")], "plugin_fields_mismatch", "pad is not of the op"),
        ([creator(tile="INT64", halo="FLOAT32")], "plugin_fields_mismatch", "halo is float, expected int"),
        ([creator(tile="CHAR", halo="INT64")], "plugin_fields_mismatch", "tile is char, expected int"),
    ],
)
def test_each_clause_has_a_code_of_its_own(there: list[Any], code: str, words: str) -> None:
    problem = registry_problem(registry(*there), SPEC)
    assert problem is not None and problem.code == code and words in problem.words


def test_one_that_fits_is_enough_whatever_stands_beside_it() -> None:
    assert registry_problem(registry(creator(version="2"), creator(namespace="else"), FITS), SPEC) is None


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({}, None),
        ({"namespace": "trt"}, "plugin_namespace_mismatch"),
        ({"version": "2"}, "plugin_version_mismatch"),
        ({"attributes": (("tile", "int"),)}, "plugin_fields_mismatch"),
        ({"attributes": (("halo", "int"), ("tile", "float"))}, "plugin_fields_mismatch"),
    ],
)
def test_what_a_node_asks_for_is_held_to_the_same_contract(changed: dict[str, Any], code: str | None) -> None:
    call = OpCall(
        **{
            "name": "TilePack",
            "namespace": "apex",
            "version": "1",
            "attributes": (("halo", "int"), ("tile", "int")),
            "body": True,
        }
        | changed
    )
    problem = call_problem(call, SPEC)
    assert (problem and problem.code) == code
