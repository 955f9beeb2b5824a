"""Where and in what networks are measured: the words that the command line, the pipeline and the measures share."""

from __future__ import annotations

from enum import StrEnum


class Backend(StrEnum):
    """What runs a network."""

    ONNXRUNTIME = "onnxruntime"
    EAGER = "eager"
    COMPILE = "compile"
    TORCHSCRIPT = "torchscript"
    OPENVINO = "openvino"
    TENSORRT = "tensorrt"


class Device(StrEnum):
    """Where it runs; `auto` is CUDA where PyTorch sees a device, else the CPU."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
