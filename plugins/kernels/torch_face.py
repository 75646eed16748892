"""How a torch function comes by its kernel: forward on the GPU by the kernel, backward by the formula, or the formula alone.

A kernel that cannot be used is no error: the formula computes the same, and ``why_not`` says what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from apex_plugins.kernels.build import fatbin
from apex_plugins.kernels.cuda import KernelModule
from apex_plugins.kernels.launch import Launch
from apex_plugins.kernels.reasons import KernelError, KernelReason

Result = Tensor | tuple[Tensor, ...]
FLOATS = {torch.float32, torch.float16, torch.bfloat16}  # of a call that a kernel may take over
# Letters of the kernels' names.
TYPES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16", torch.uint8: "u8", torch.float8_e4m3fn: "e4m3"}
_wanted = True


@contextmanager
def use_kernels(wanted: bool) -> Iterator[None]:
    """Whether kernels may stand for formulas in this process meanwhile; nobody can allow them within a refusal."""
    global _wanted
    before = _wanted
    _wanted = before and wanted
    try:
        yield
    finally:
        _wanted = before


def why_not(op: str) -> KernelError | None:
    """Why the kernels of an op cannot run on the current GPU, or None where they can. Compiles them when nobody did before."""
    if not _wanted:
        return KernelError(KernelReason.KERNELS_SWITCHED_OFF, "kernels were switched off")
    if not torch.cuda.is_available():
        return KernelError(KernelReason.TORCH_WITHOUT_CUDA, "torch sees no GPU")
    return _module(op, torch.cuda.current_device())[1]


def run(op: str, launches: Sequence[Launch], device: torch.device) -> None:
    """Queue kernels of an op on torch's current stream of a device. Raises KernelError."""
    with torch.cuda.device(device):
        module, error = _module(op, torch.cuda.current_device())
        if module is None:
            raise error or KernelError(KernelReason.KERNEL_LOAD_FAILED, op)
        for launch in launches:
            module.launch(launch, torch.cuda.current_stream().cuda_stream)


def by_kernel(op: str, kernel: Callable[..., Result], formula: Callable[..., Result], *arguments: Any) -> Result:
    """``kernel(*arguments)`` where the tensors are on a GPU, all floats of one type, and the kernels can run; else ``formula``.

    Both take the same arguments and give the same tensors. Gradients are those of the formula, which is computed again for them.
    ``torch.compile`` sees the formula.
    """
    tensors = [item for item in arguments if isinstance(item, Tensor)]
    if not all(item.is_cuda for item in tensors) or torch.compiler.is_compiling():
        return formula(*arguments)
    kinds = {item.dtype for item in tensors if item.is_floating_point()}
    if len(kinds) != 1 or not kinds <= FLOATS or why_not(op) is not None:
        return formula(*arguments)
    return KernelFunction.apply(kernel, formula, *arguments)


def on_arrays(function: Callable[..., Result], arrays: Sequence[Any], attributes: Sequence[Any], device: str) -> tuple[Any, ...]:
    """A torch function of NumPy arrays, on a device, as NumPy arrays. Nothing learns from it."""
    with torch.inference_mode():
        result = function(*(torch.from_numpy(array).to(device) for array in arrays), *attributes)
    return tuple(item.cpu().numpy() for item in (result if isinstance(result, tuple) else (result,)))


class KernelFunction(torch.autograd.Function):
    """``apply(kernel, formula, *arguments)``: the kernel's result, with the gradients of the formula."""

    @staticmethod
    def forward(ctx: Any, kernel: Callable[..., Result], formula: Callable[..., Result], *arguments: Any) -> Result:
        ctx.formula = formula
        ctx.others = [None if isinstance(item, Tensor) else item for item in arguments]
        ctx.places = [place for place, item in enumerate(arguments) if isinstance(item, Tensor)]
        ctx.save_for_backward(*(arguments[place] for place in ctx.places))
        return kernel(*arguments)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        arguments = list(ctx.others)
        for place, tensor in zip(ctx.places, ctx.saved_tensors, strict=True):
            arguments[place] = tensor.detach().requires_grad_(ctx.needs_input_grad[place + 2])
        with torch.enable_grad():
            result = ctx.formula(*arguments)
        results = result if isinstance(result, tuple) else (result,)
        pairs = [(out, grad) for out, grad in zip(results, gradients, strict=True) if out.requires_grad and grad is not None]
        wanted = [place for place in ctx.places if ctx.needs_input_grad[place + 2]]
        found = torch.autograd.grad(
            [out for out, _ in pairs], [arguments[place] for place in wanted], [grad for _, grad in pairs], allow_unused=True
        )
        by_place = dict(zip(wanted, found, strict=True))
        return (None, None, *(by_place.get(place) for place in range(len(arguments))))


@cache
def _module(op: str, device: int) -> tuple[KernelModule | None, KernelError | None]:
    """Loaded once per op and GPU; so is the refusal."""
    if not torch.cuda.is_current_stream_capturing():
        torch.cuda.synchronize(device)  # torch makes the context, which a module is loaded into, when it first does something
    try:
        return KernelModule(fatbin(op)), None
    except KernelError as error:
        return None, error
