"""Why a kernel cannot be built or run here, as stable codes with remedies; whoever is refused falls back to the formula."""

from __future__ import annotations

from enum import StrEnum


class KernelReason(StrEnum):
    """Codes are never renamed; those that the runtime also knows bear the same name there."""

    NVCC_NOT_FOUND = "nvcc_not_found"
    KERNEL_COMPILE_FAILED = "kernel_compile_failed"
    KERNEL_SPILLS = "kernel_spills"
    CXX_NOT_FOUND = "cxx_not_found"
    CACHE_NOT_WRITABLE = "cache_not_writable"
    CUDA_PYTHON_NOT_INSTALLED = "cuda_python_not_installed"
    CUDA_PYTHON_IMPORT_FAILED = "cuda_python_import_failed"
    TORCH_WITHOUT_CUDA = "torch_without_cuda"
    KERNEL_LOAD_FAILED = "kernel_load_failed"
    KERNEL_LAUNCH_FAILED = "kernel_launch_failed"
    KERNELS_SWITCHED_OFF = "kernels_switched_off"


REMEDIES: dict[KernelReason, str] = {
    KernelReason.NVCC_NOT_FOUND: (
        "Install the CUDA toolkit 12.8 or newer and put nvcc on the PATH, or set CUDA_HOME to its folder; without it every op "
        "runs as its formula in standard operations."
    ),
    KernelReason.KERNEL_COMPILE_FAILED: "The compiler's words are in the message; the sources need CUDA toolkit 12.8 or newer.",
    KernelReason.KERNEL_SPILLS: "Give the kernel fewer live values: nothing of it may live outside registers and shared memory.",
    KernelReason.CXX_NOT_FOUND: "Install g++ or clang++, or set CXX to a C++17 compiler.",
    KernelReason.CACHE_NOT_WRITABLE: "Set APEX_CACHE_DIR to a folder that can be written.",
    KernelReason.CUDA_PYTHON_NOT_INSTALLED: "Install it for the CUDA of this machine's driver: pip install cuda-bindings",
    KernelReason.CUDA_PYTHON_IMPORT_FAILED: (
        "Reinstall cuda-python for the CUDA of this machine's driver: pip install --force-reinstall cuda-bindings"
    ),
    KernelReason.TORCH_WITHOUT_CUDA: "Install a build of torch for the CUDA of this machine's driver.",
    KernelReason.KERNEL_LOAD_FAILED: "Update the driver: it must be as new as the CUDA toolkit that compiled the kernels.",
    KernelReason.KERNEL_LAUNCH_FAILED: "Check the driver with nvidia-smi and the inputs with CUDA_LAUNCH_BLOCKING=1.",
    KernelReason.KERNELS_SWITCHED_OFF: "Nothing is needed: the formulas compute the same. For the kernels: train.kernels: auto",
}


class KernelError(Exception):
    """A kernel cannot be built or run; ``reason`` is the stable code, ``remedy`` what the person at the keyboard can do."""

    def __init__(self, reason: KernelReason, message: str) -> None:
        super().__init__(f"{message} [{reason.value}] {REMEDIES[reason]}")
        self.reason = reason
        self.message = message
        self.remedy = REMEDIES[reason]
