"""gradfs without an SDK needs nothing but files; this package spares the typing.

    import gradfs

    model = gradfs.Model("/mnt/gradfs/models/toy")
    weight = model.tensors["fc1.weight"]           # a memoryview of the live parameters
    model.push({"fc1.weight": gradient})           # returns when the model contains it

gradfs.numpy gives NumPy arrays, gradfs.torch torch tensors and an optimizer; both are imported only when they are
named. The rest is the standard library.
"""
import sys

from .errors import (Error, FormatError, InvalidGradient, Mismatch, NotFinite, OutcomeUnknown, PushError,
                     PushFailed, QuotaExceeded, Refused, RoundTimedOut, SlotInUse, TooStale, WrongProcess)
from .model import Model, Pushed
from .safetensors import save_model
from .tensorfile import TensorFile

__version__ = "0.1.0"  # that of the project in CMakeLists.txt; tests/python/unit_test.py compares them

__all__ = ["Error", "FormatError", "InvalidGradient", "Mismatch", "Model", "NotFinite", "OutcomeUnknown", "PushError",
           "PushFailed", "Pushed", "QuotaExceeded", "Refused", "RoundTimedOut", "SlotInUse", "TensorFile", "TooStale",
           "WrongProcess", "save_model"]

if sys.byteorder != "little":
    raise ImportError("gradfs: the files are little-endian, and this machine is not")
