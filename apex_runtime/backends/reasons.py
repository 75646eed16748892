"""Why a backend cannot do something, as stable codes with remedies: one registry for selection, build and execution.

Scripts may match on the codes: a code is never renamed and never built at run time from an exception's name.
"""

from __future__ import annotations

from enum import StrEnum

from apex_runtime.errors import BackendError, UsageError


class ReasonCode(StrEnum):
    """Why something is not available or did not work."""

    ONNXRUNTIME_NOT_INSTALLED = "onnxruntime_not_installed"
    ONNXRUNTIME_CUDA_NOT_INSTALLED = "onnxruntime_cuda_not_installed"
    CUDA_UNAVAILABLE = "cuda_unavailable"
    CUDA_DEVICE_NOT_FOUND = "cuda_device_not_found"
    CUDA_DEVICE_INDEX_OUT_OF_RANGE = "cuda_device_index_out_of_range"
    CUDA_QUERY_FAILED = "cuda_query_failed"
    TORCH_WITHOUT_CUDA = "torch_without_cuda"
    TORCH_NOT_INSTALLED = "torch_not_installed"
    ONNXSCRIPT_NOT_INSTALLED = "onnxscript_not_installed"
    TENSORRT_PYTHON_NOT_INSTALLED = "tensorrt_python_not_installed"
    TENSORRT_PYTHON_IMPORT_FAILED = "tensorrt_python_import_failed"
    TENSORRT_RTX_PYTHON_NOT_INSTALLED = "tensorrt_rtx_python_not_installed"
    TENSORRT_RTX_PYTHON_IMPORT_FAILED = "tensorrt_rtx_python_import_failed"
    COMPUTE_CAPABILITY_NOT_SUPPORTED = "compute_capability_not_supported"
    CUDA_PYTHON_NOT_INSTALLED = "cuda_python_not_installed"
    CUDA_PYTHON_IMPORT_FAILED = "cuda_python_import_failed"
    CUDA_PROVIDER_NOT_IN_SESSION = "cuda_provider_not_in_session"
    FLOAT_NODES_ON_CPU = "float_nodes_on_cpu"
    NODE_PLACEMENT_UNKNOWN = "node_placement_unknown"
    CUDA_GRAPH_UNAVAILABLE = "cuda_graph_unavailable"
    ONNX_PARSE_FAILED = "onnx_parse_failed"
    PLAN_BUILD_FAILED = "plan_build_failed"
    PLAN_FOR_OTHER_GPU = "plan_for_other_gpu"
    PLAN_FOR_OTHER_VERSION = "plan_for_other_version"
    PLAN_LOAD_FAILED = "plan_load_failed"
    PLAN_DOES_NOT_FIT = "plan_does_not_fit"
    PLUGIN_NOT_AVAILABLE = "plugin_not_available"
    PLUGIN_NOT_REGISTERED = "plugin_not_registered"
    PLUGIN_NAMESPACE_MISMATCH = "plugin_namespace_mismatch"
    PLUGIN_VERSION_MISMATCH = "plugin_version_mismatch"
    PLUGIN_FIELDS_MISMATCH = "plugin_fields_mismatch"
    PLUGIN_NOT_USED = "plugin_not_used"
    PLUGIN_IMPORT_FAILED = "plugin_import_failed"
    PLUGINS_SWITCHED_OFF = "plugins_switched_off"
    BATCH_NOT_IN_PLAN = "batch_not_in_plan"
    MODEL_LOAD_FAILED = "model_load_failed"
    EXECUTION_FAILED = "execution_failed"
    OUT_OF_MEMORY = "out_of_memory"
    NON_FINITE_OUTPUT = "non_finite_output"
    LATENCY_TABLE_MISSING = "latency_table_missing"
    NOT_RECORDED = "not_recorded"
    PINNED_REGION_EMPTY = "pinned_region_empty"
    PINNED_REGION_TOUCHED = "pinned_region_touched"
    FUNCTIONS_CHANGED = "functions_changed"
    NOTHING_TO_ROUND = "nothing_to_round"
    COMPUTE_CAPABILITY_BELOW_SM89 = "compute_capability_below_sm89"
    CALIBRATION_NOT_FINITE = "calibration_not_finite"
    CALIBRATION_CACHE_DAMAGED = "calibration_cache_damaged"
    SENSITIVITY_JOURNAL_DAMAGED = "sensitivity_journal_damaged"


REMEDIES: dict[ReasonCode, str] = {
    ReasonCode.ONNXRUNTIME_NOT_INSTALLED: "Install it: pip install onnxruntime",
    ReasonCode.ONNXRUNTIME_CUDA_NOT_INSTALLED: (
        "The CPU build and the CUDA build share a folder, so leave the CUDA build alone in it: "
        "pip uninstall onnxruntime onnxruntime-gpu, then pip install onnxruntime-gpu."
    ),
    ReasonCode.CUDA_UNAVAILABLE: "Install an NVIDIA driver; the CPU needs none.",
    ReasonCode.CUDA_DEVICE_NOT_FOUND: "Make a GPU visible (nvidia-smi, CUDA_VISIBLE_DEVICES).",
    ReasonCode.CUDA_DEVICE_INDEX_OUT_OF_RANGE: "Name a GPU that exists (nvidia-smi lists them), for example --device cuda:0.",
    ReasonCode.CUDA_QUERY_FAILED: "Check the driver with nvidia-smi.",
    ReasonCode.TORCH_WITHOUT_CUDA: "Install a build of torch for the CUDA of this machine's driver.",
    ReasonCode.TORCH_NOT_INSTALLED: "Install PyTorch: pip install torch, or the extra train.",
    ReasonCode.ONNXSCRIPT_NOT_INSTALLED: "Install the extra train, which writes the function bodies of the ops.",
    ReasonCode.TENSORRT_PYTHON_NOT_INSTALLED: "Install TensorRT 10.12 or newer: pip install tensorrt",
    ReasonCode.TENSORRT_PYTHON_IMPORT_FAILED: (
        "Reinstall TensorRT so that its Python package and libraries fit: pip install --force-reinstall tensorrt"
    ),
    ReasonCode.TENSORRT_RTX_PYTHON_NOT_INSTALLED: 'Install the extra rtx: pip install ".[rtx]" in a checkout.',
    ReasonCode.TENSORRT_RTX_PYTHON_IMPORT_FAILED: (
        'Reinstall the extra rtx so that its two wheels fit: pip install --force-reinstall ".[rtx]" in a checkout.'
    ),
    ReasonCode.COMPUTE_CAPABILITY_NOT_SUPPORTED: "Choose among the compute capabilities that the message lists.",
    ReasonCode.CUDA_PYTHON_NOT_INSTALLED: "Install it for the CUDA of this machine's driver: pip install cuda-bindings",
    ReasonCode.CUDA_PYTHON_IMPORT_FAILED: (
        "Reinstall cuda-python for the CUDA of this machine's driver: pip install --force-reinstall cuda-bindings"
    ),
    ReasonCode.CUDA_PROVIDER_NOT_IN_SESSION: (
        "ONNX Runtime could not load its CUDA libraries: install the CUDA and cuDNN that this onnxruntime-gpu was built for, for "
        'example pip install "onnxruntime-gpu[cuda,cudnn]", or use --device cpu.'
    ),
    ReasonCode.FLOAT_NODES_ON_CPU: "Use --device cpu, or install a newer onnxruntime-gpu, which may know these nodes.",
    ReasonCode.NODE_PLACEMENT_UNKNOWN: "Install onnxruntime-gpu 1.24 or newer, which says where it runs each node.",
    ReasonCode.CUDA_GRAPH_UNAVAILABLE: "Nothing is needed: the same kernels run, each launched by itself, which is slower.",
    ReasonCode.ONNX_PARSE_FAILED: "The message names the node; export the model again, or build with --backend ort-cpu.",
    ReasonCode.PLAN_BUILD_FAILED: "Build again with --verbose to see the builder's log, or build with --backend ort-cpu.",
    ReasonCode.PLAN_FOR_OTHER_GPU: "Build a plan for this GPU: apex-rt build-engine with its --compute-capability.",
    ReasonCode.PLAN_FOR_OTHER_VERSION: "Build the bundle again with the version that is installed here: apex-rt build-engine.",
    ReasonCode.PLAN_LOAD_FAILED: "Build the bundle again with the version that is installed here: apex-rt build-engine.",
    ReasonCode.PLAN_DOES_NOT_FIT: "Build the bundle again from its model with this version of apex-rt build-engine.",
    ReasonCode.PLUGIN_NOT_AVAILABLE: "Export the model again with this version of apex-train, which writes a body for every op.",
    ReasonCode.PLUGIN_NOT_REGISTERED: (
        "Import apex_plugins.<op>.trt_plugin, or load the library that holds the plugin, before the engine is built or loaded."
    ),
    ReasonCode.PLUGIN_NAMESPACE_MISMATCH: (
        "A plugin of another library bears this name: do not load that library, or register the plugin in the namespace apex."
    ),
    ReasonCode.PLUGIN_VERSION_MISMATCH: (
        "Use plugin, model and apex-x of one release: export the model again and load no older plugin library."
    ),
    ReasonCode.PLUGIN_FIELDS_MISMATCH: (
        "Use plugin, model and apex-x of one release: the message lists the fields that are missing, foreign or of another type."
    ),
    ReasonCode.PLUGIN_NOT_USED: (
        "This version of TensorRT's parser prefers function bodies; report its version, and build with --backend tensorrt-rtx or "
        "--backend ort-cuda meanwhile."
    ),
    ReasonCode.PLUGIN_IMPORT_FAILED: (
        "The function body is used instead. For the kernels install TensorRT 10.12 or newer: tensorrt.plugin must have aot_impl."
    ),
    ReasonCode.PLUGINS_SWITCHED_OFF: "Build again without --no-plugins, and without plugins: false in the recipe.",
    ReasonCode.BATCH_NOT_IN_PLAN: "Use a smaller --batch, or build the bundle again with a larger --max-batch.",
    ReasonCode.MODEL_LOAD_FAILED: "Export the model again with this version of apex-train.",
    ReasonCode.EXECUTION_FAILED: "Run apex-rt parity on this engine; if it fails, build the bundle again.",
    ReasonCode.OUT_OF_MEMORY: "Use a smaller --batch, a smaller --budget, or a model exported at a smaller size.",
    ReasonCode.NON_FINITE_OUTPUT: "The model is damaged or was trained to NaN: run apex-rt parity on it, then export it again.",
    ReasonCode.LATENCY_TABLE_MISSING: "Give the budget in tiles, as a share or in gflops.",
    ReasonCode.NOT_RECORDED: (
        "Record it again with the same --images, --budget and --batch: apex-rt parity SUBJECT --record FILE.json"
    ),
    ReasonCode.PINNED_REGION_EMPTY: "Export the model again with this version of apex-train, which names the regions.",
    ReasonCode.PINNED_REGION_TOUCHED: "Build with --precision fp32, and report it: it is a fault of the pass.",
    ReasonCode.NOTHING_TO_ROUND: "Allow a larger --max-drop, or give --precision fp16.",
    ReasonCode.COMPUTE_CAPABILITY_BELOW_SM89: "Name 89 or more, or give --precision int8, which every GPU has.",
    ReasonCode.FUNCTIONS_CHANGED: "Build with --precision fp32, and report it: it is a fault of the pass.",
    ReasonCode.CALIBRATION_NOT_FINITE: (
        "Run apex-rt parity on the model with this image. If the numbers are right, leave its region as it is by --pin."
    ),
    ReasonCode.CALIBRATION_CACHE_DAMAGED: "Delete the file, or name another: the next build calibrates anew and writes it.",
    ReasonCode.SENSITIVITY_JOURNAL_DAMAGED: "Delete the file: the next build with --max-drop measures anew and writes it.",
}


def backend_error(code: ReasonCode, message: str, *, remedy: str = "") -> BackendError:
    """A BackendError that carries the stable code; the remedy is the registry's unless a better one is known."""
    return BackendError(f"{message} [{code.value}]", remedy or REMEDIES[code], code=code.value)


def argument_error(code: ReasonCode, message: str, *, remedy: str = "") -> UsageError:
    """The same for a refusal that is due to a wrong argument, and not to what is installed here."""
    return UsageError(f"{message} [{code.value}]", remedy or REMEDIES[code], code=code.value)
