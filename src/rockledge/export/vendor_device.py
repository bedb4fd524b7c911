"""Exported operators on a board, through librknnrt's public C API.

Structures and numbers are those of rknn_api.h (https://github.com/airockchip/rknn-toolkit2,
rknpu2/runtime/Linux/librknn_api/include). The library is the vendor's and comes with the board's system; it
is looked up when a device is made, and nothing else of Rockledge knows it.
"""

import ctypes
import json
from ctypes import POINTER, Structure, byref, c_char, c_int, c_int32, c_uint8, c_uint32, c_uint64, c_void_p
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rockledge.errors import NpuError, UsageError
from rockledge.export.rknn_target import MANIFEST

Float32 = npt.NDArray[np.float32]

LIBRARY: Final = "librknnrt.so"
_IN_OUT_NUM, _SDK_VERSION = 0, 5  # rknn_query_cmd
_FLOAT32 = 0  # rknn_tensor_type
_UNDEFINED = 3  # rknn_tensor_format: two axes have none


class _Counts(Structure):
    _fields_ = (("inputs", c_uint32), ("outputs", c_uint32))


class _Versions(Structure):
    _fields_ = (("api", c_char * 256), ("driver", c_char * 256))


class _Input(Structure):
    _fields_ = (
        ("index", c_uint32),
        ("buf", c_void_p),
        ("size", c_uint32),
        ("pass_through", c_uint8),
        ("type", c_int32),
        ("fmt", c_int32),
    )


class _Output(Structure):
    _fields_ = (
        ("want_float", c_uint8),
        ("is_prealloc", c_uint8),
        ("index", c_uint32),
        ("buf", c_void_p),
        ("size", c_uint32),
    )


_ARGUMENTS: Final[dict[str, list[Any]]] = {
    "rknn_init": [POINTER(c_uint64), c_void_p, c_uint32, c_uint32, c_void_p],
    "rknn_destroy": [c_uint64],
    "rknn_query": [c_uint64, c_int, c_void_p, c_uint32],
    "rknn_inputs_set": [c_uint64, c_uint32, POINTER(_Input)],
    "rknn_run": [c_uint64, c_void_p],
    "rknn_outputs_get": [c_uint64, c_uint32, POINTER(_Output), c_void_p],
    "rknn_outputs_release": [c_uint64, c_uint32, POINTER(_Output)],
}


class VendorDevice:
    """The operators of an export directory on this board's NPU; close it, or use it in a `with` block.

    UsageError where `folder` is not such a directory; NpuError where the library is missing or refuses.
    """

    def __init__(self, folder: str | Path, library: str | Path = LIBRARY) -> None:
        self._folder = Path(folder)
        try:
            self._manifest: dict[str, Any] = json.loads((self._folder / MANIFEST).read_bytes())
            self._operators = {one["name"]: one for one in self._manifest["operators"]}
            self.rows = int(self._manifest["rows"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{folder} is not an export for the vendor's runtime; make one with "
                "`rockledge export --to rknn`"
            ) from error
        try:
            self._library = ctypes.CDLL(str(library))
            for name, arguments in _ARGUMENTS.items():
                function = getattr(self._library, name)
                function.argtypes, function.restype = arguments, c_int
        except (OSError, AttributeError) as error:
            raise NpuError(
                f"the vendor's runtime {library} cannot be loaded ({error}); install librknnrt on this board"
            ) from error
        self._contexts: dict[str, int] = {}

    def __enter__(self) -> "VendorDevice":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def names(self) -> tuple[str, ...]:
        """Operators, in the order of the forward pass."""
        return tuple(self._operators)

    def versions(self, name: str) -> tuple[str, str]:
        """Versions of the library and of the driver; `name` is an operator to ask through."""
        found = _Versions()
        size = ctypes.sizeof(found)
        self._call("rknn_query", self._context(name), _SDK_VERSION, byref(found), size, operator=name)
        return found.api.decode(errors="replace"), found.driver.decode(errors="replace")

    def run(self, name: str, x: Float32) -> Float32:
        """The operator's outputs fp32 [rows, outputs] for `x` fp32 [rows, inputs]."""
        if name not in self._operators:
            raise UsageError(f"there is no operator {name!r} in {self._folder}; take one of `names`")
        about = self._operators[name]
        expected = (self.rows, int(about["inputs"]))
        if x.shape != expected:
            raise UsageError(f"{name} takes an input of {expected}, not one of {x.shape}")
        context = self._context(name)
        values = np.ascontiguousarray(x, np.float32)
        result = np.empty((self.rows, int(about["outputs"])), np.float32)
        entry = _Input(0, values.ctypes.data, values.nbytes, 0, _FLOAT32, _UNDEFINED)
        self._call("rknn_inputs_set", context, 1, byref(entry), operator=name)
        self._call("rknn_run", context, None, operator=name)
        output = _Output(1, 1, 0, result.ctypes.data, result.nbytes)
        self._call("rknn_outputs_get", context, 1, byref(output), None, operator=name)
        self._call("rknn_outputs_release", context, 1, byref(output), operator=name)
        return result

    def close(self) -> None:
        """Gives everything back; a closed device may be used again."""
        while self._contexts:
            _, context = self._contexts.popitem()
            self._library.rknn_destroy(context)

    def _context(self, name: str) -> int:
        if name not in self._contexts:
            file = self._folder / self._operators[name]["file"]
            try:
                model = file.read_bytes()
            except OSError as error:
                raise UsageError(f"{file} cannot be read; make the export again") from error
            context = c_uint64()
            self._call("rknn_init", byref(context), model, len(model), 0, None, operator=name)
            self._contexts[name] = context.value
            counts = _Counts()
            size = ctypes.sizeof(counts)
            self._call("rknn_query", context.value, _IN_OUT_NUM, byref(counts), size, operator=name)
            if (counts.inputs, counts.outputs) != (1, 1):
                raise NpuError(
                    f"{file.name} has {counts.inputs} inputs and {counts.outputs} outputs, expected one of "
                    "each; make the export again"
                )
        return self._contexts[name]

    def _call(self, function: str, *arguments: Any, operator: str) -> None:
        code = getattr(self._library, function)(*arguments)
        if code != 0:
            raise NpuError(
                f"the vendor's runtime refuses {operator} ({function} returned {code}); "
                "is the export for this chip, and the library as new as the toolkit?"
            )
