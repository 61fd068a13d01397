"""Keeps every library from reporting its use: what is told to them, and the one way to load them.

OpenVINO, NNCF and ONNX Runtime report that they were loaded, and keep a number for this reader in
the home folder, unless the environment forbids it before they load.
"""

import importlib
import os
from types import ModuleType

from efflab.arguments import check_arguments

OPT_OUTS = {
    "DO_NOT_TRACK": "1",  # donottrack.sh: Hugging Face's hub and its downloads, among others
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_XET_TELEMETRY_ENABLED": "0",
    "ORT_DISABLE_TELEMETRY": "1",
    "NNCF_CI": "1",
    # OpenVINO has no switch but to be on a build machine. Of those that it knows, this one means
    # nothing to other tools, which under CI would change what they do.
    "JENKINS_URL": "none",
}
REPORTING = ("nncf", "onnxruntime", "openvino")
"""What reports as soon as it is loaded."""


def opt_out() -> None:
    """Forbid reports to this process and to all that it starts; no file is written or read."""
    os.environ.update(OPT_OUTS)


@check_arguments
def load(name: str) -> ModuleType:
    """The module of this name ("openvino"), loaded after `opt_out`."""
    opt_out()
    return importlib.import_module(name)
