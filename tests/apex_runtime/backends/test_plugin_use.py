"""By what each op is built and what a plan needs where it is loaded, with a registry and plugins of our own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from apex_plugins.kernels.reasons import KernelError, KernelReason
from apex_runtime.backends import plugin_use
from apex_runtime.backends.op_calls import OpCall
from apex_runtime.backends.plugin_use import PluginUse, as_parsed, check_before_load, choose_implementations
from apex_runtime.errors import BackendError

CALL = OpCall("TilePack", "apex", "1", (("halo", "int"), ("tile", "int")), body=True, count=2)
BODILESS = OpCall("TilePack", "apex", "1", CALL.attributes, body=False)
STRANGE = OpCall("SelectionKey", "apex", "1", (), body=True)
MODULE = "apex_plugins.tile_pack.trt_plugin"


def creator(version: str = "1", fields: tuple[str, ...] = ("tile", "halo")) -> SimpleNamespace:
    described = [SimpleNamespace(name=name, type=SimpleNamespace(name="INT64")) for name in fields]
    return SimpleNamespace(name="TilePack", plugin_version=version, plugin_namespace="apex", field_names=described)


class Fake:
    """TensorRT with a registry that a test fills, and layers that a parser is said to have made."""

    LayerType = SimpleNamespace(PLUGIN_V3="plugin", CONVOLUTION="convolution")

    def __init__(self) -> None:
        self.all_creators: list[Any] = []
        self.imports: list[str] = []

    def get_plugin_registry(self) -> Fake:
        return self

    def network(self, plugins: int) -> SimpleNamespace:
        layers = [SimpleNamespace(type=kind) for kind in ["convolution"] * 3 + ["plugin"] * plugins]
        return SimpleNamespace(num_layers=len(layers), get_layer=layers.__getitem__)


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Importing the plugin of TilePack registers one that fits, until a test has it otherwise."""
    fake = Fake()
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    imports(fake, monkeypatch, lambda: fake.all_creators.append(creator()))
    return fake


def imports(fake: Fake, monkeypatch: pytest.MonkeyPatch, effect: Callable[[], object]) -> None:
    def import_module(name: str) -> ModuleType:
        fake.imports.append(name)
        effect()
        module = ModuleType(name)
        module.IMPLEMENTATION = "plan"  # type: ignore[attr-defined]
        sys.modules[name] = module
        return module

    monkeypatch.setattr(plugin_use, "importlib", SimpleNamespace(import_module=import_module))
    monkeypatch.setitem(sys.modules, MODULE, ModuleType(MODULE))  # so that it is gone afterwards
    monkeypatch.delitem(sys.modules, MODULE)


def fails(error: Exception) -> Callable[[], object]:
    def effect() -> None:
        raise error

    return effect


NO_NVCC = KernelError(KernelReason.NVCC_NOT_FOUND, "nvcc is nowhere")


def test_only_the_ops_of_the_graph_are_registered(trt: Fake) -> None:
    assert choose_implementations(trt, [CALL]) == (PluginUse(CALL, "plan"),)  # type: ignore[arg-type]
    assert trt.imports == [MODULE]
    assert choose_implementations(trt, []) == ()  # type: ignore[arg-type]


def test_a_plugin_of_somebody_else_that_fits_is_left_in_its_place(trt: Fake) -> None:
    trt.all_creators = [creator()]
    assert choose_implementations(trt, [CALL])[0].implementation == "registry"  # type: ignore[arg-type]
    assert trt.imports == []


@pytest.mark.parametrize(
    ("error", "reason", "words"),
    [
        (NO_NVCC, "nvcc_not_found", "nvcc is nowhere"),
        (AttributeError("no aot_impl"), "plugin_import_failed", "AttributeError: no aot_impl"),
    ],
)
def test_without_a_plugin_the_body_is_built_and_says_why(
    trt: Fake, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str, words: str
) -> None:
    imports(trt, monkeypatch, fails(error))
    use = choose_implementations(trt, [CALL])[0]  # type: ignore[arg-type]
    assert (use.implementation, use.reason, use.has_plugin) == ("body", reason, False) and words in use.detail
    with pytest.raises(BackendError, match=words) as caught:
        choose_implementations(trt, [BODILESS])  # type: ignore[arg-type]
    assert caught.value.code == "plugin_not_available"


def test_switched_off_plugins_leave_the_registry_alone_and_the_body_says_why(trt: Fake) -> None:
    trt.all_creators = [creator(fields=("tile",))]  # what would be refused is not even looked at
    uses = choose_implementations(trt, [CALL, STRANGE], plugins=False)  # type: ignore[arg-type]
    assert [(use.implementation, use.reason) for use in uses] == [("body", "plugins_switched_off"), ("body", "")]
    assert trt.imports == []
    with pytest.raises(BackendError, match="switched off") as caught:
        choose_implementations(trt, [BODILESS], plugins=False)  # type: ignore[arg-type]
    assert caught.value.code == "plugin_not_available"


def test_an_op_that_nobody_knows_is_built_from_its_body(trt: Fake) -> None:
    assert choose_implementations(trt, [STRANGE])[0].implementation == "body"  # type: ignore[arg-type]
    assert trt.imports == []


def test_one_that_does_not_fit_is_refused_though_there_is_a_body(trt: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    trt.all_creators = [creator(fields=("tile",))]
    imports(trt, monkeypatch, lambda: None)  # the registry keeps the first of a name
    with pytest.raises(BackendError, match="halo is missing") as caught:
        choose_implementations(trt, [CALL])  # type: ignore[arg-type]
    assert caught.value.code == "plugin_fields_mismatch" and "apex-x" in caught.value.remedy


def test_a_node_of_another_version_is_refused_before_anything_is_registered(trt: Fake) -> None:
    with pytest.raises(BackendError) as caught:
        choose_implementations(trt, [OpCall("TilePack", "apex", "2", CALL.attributes, body=True)])  # type: ignore[arg-type]
    assert caught.value.code == "plugin_version_mismatch" and trt.imports == []


def test_what_is_reported_is_what_the_parser_made(trt: Fake) -> None:
    uses = (PluginUse(CALL, "plan"), PluginUse(STRANGE))
    assert as_parsed(trt, trt.network(2), uses) == uses  # type: ignore[arg-type]
    changed = as_parsed(trt, trt.network(0), uses)  # type: ignore[arg-type]
    assert [(use.implementation, use.reason) for use in changed] == [("body", "plugin_not_used"), ("body", "")]
    with pytest.raises(BackendError, match="1 plugin layers of 2 nodes") as caught:
        as_parsed(trt, trt.network(1), uses)  # type: ignore[arg-type]
    assert caught.value.code == "plugin_not_used"
    assert as_parsed(trt, None, uses[1:]) == uses[1:]  # type: ignore[arg-type]


def test_a_plan_with_its_own_kernels_needs_nothing_registered(trt: Fake) -> None:
    check_before_load(trt, CALL, "plan")  # type: ignore[arg-type]
    check_before_load(trt, STRANGE, "body")  # type: ignore[arg-type]
    assert trt.imports == []
    for call, code in (
        (OpCall("TilePack", "apex", "2", CALL.attributes, body=True), "plugin_version_mismatch"),
        (OpCall("TilePack", "apex", "1", (("tile", "int"),), body=True), "plugin_fields_mismatch"),
        (STRANGE, "plugin_not_available"),
    ):
        with pytest.raises(BackendError) as caught:
            check_before_load(trt, call, "plan")  # type: ignore[arg-type]
        assert caught.value.code == code


def test_a_plan_that_needs_the_registry_finds_its_plugin_or_says_what_is_wrong(
    trt: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_before_load(trt, CALL, "registry")  # type: ignore[arg-type]
    assert trt.imports == [MODULE]
    trt.all_creators = []
    imports(trt, monkeypatch, fails(NO_NVCC))
    with pytest.raises(BackendError, match="nvcc is nowhere") as caught:
        check_before_load(trt, CALL, "registry")  # type: ignore[arg-type]
    assert caught.value.code == "plugin_not_registered" and MODULE in caught.value.remedy
