"""Turns off the telemetry of libraries, and loads those that would report their import.

OpenVINO, NNCF and ONNX Runtime report that they were loaded, and store a user id in the home
folder, unless the environment forbids it before they load.
"""

import importlib
import os
from types import ModuleType

OPT_OUTS = {
    "DO_NOT_TRACK": "1",  # donottrack.sh: Hugging Face's hub and its downloads, among others
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_XET_TELEMETRY_ENABLED": "0",
    "ORT_DISABLE_TELEMETRY": "1",
    "NNCF_CI": "1",
    # OpenVINO has no switch, but is silent on CI servers. Of the variables by which it detects
    # them, this one does not change what other tools do, as CI would.
    "JENKINS_URL": "none",
}


def opt_out() -> None:
    """Turn off telemetry in this process and its children; no file is written or read."""
    os.environ.update(OPT_OUTS)


def load(name: str) -> ModuleType:
    """The module of this name ("openvino"), loaded after `opt_out`."""
    opt_out()
    return importlib.import_module(name)
