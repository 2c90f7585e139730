"""What other libraries are told before they load: to report nothing about their use, and where to keep kernels.

Imported by the package itself, so that it holds for the library as for the command line. A variable that the user has
set stays as it is.
"""

import os
import sys
from pathlib import Path
from typing import Any

from ecom_rag.files.cache import kernels_folder

_REPORT_NOTHING = {
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, for transformers, datasets, accelerate and their like too
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # datasets
    "DISABLE_SAFETENSORS_CONVERSION": "1",  # transformers asks a server to convert a checkpoint
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
}


def prepare() -> None:
    """Set the variables; for libraries that were loaded before, what they have read of them."""
    asked = set(os.environ)
    for name, value in _REPORT_NOTHING.items():
        os.environ.setdefault(name, value)
    hub = sys.modules.get("huggingface_hub.constants")
    if hub is not None and "HF_HUB_DISABLE_TELEMETRY" not in asked:
        hub.HF_HUB_DISABLE_TELEMETRY = True  # type: ignore[attr-defined]
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal() and int(threads):  # compiled loops keep to it too, and do not change it for torch
        os.environ.setdefault("NUMBA_NUM_THREADS", threads)
    kernels = kernels_folder(Path(__file__).parent)
    if kernels is not None:
        os.environ["NUMBA_CACHE_DIR"] = str(kernels)
        if "numba" in sys.modules:
            sys.modules["numba"].config.CACHE_DIR = str(kernels)


def openvino() -> Any:
    """The module ``openvino``, with its usage reporting off: no variable does that, and it is on by default.

    Its import and each conversion would send events, and write ``~/intel``.
    """
    try:
        from openvino_telemetry.utils.opt_in_checker import ConsentCheckResult, OptInChecker
        from openvino_telemetry.utils.sender import TelemetrySender
    except ImportError:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # then openvino takes its own stub
    else:
        OptInChecker.check = lambda *_, **__: ConsentCheckResult.DECLINED
        TelemetrySender.send = lambda *_, **__: None
    import openvino

    return openvino
