"""A stand-in for the vendor's toolkit: records every call in $STUB_CALLS, and computes graphs with NumPy.

$STUB_FAULT: "refuse" lets build fail, "refuse codes" only for graphs with scales of their own, "die" ends the
process there, "hang" stops it.
"""

import json
import os
import pickle
import time
from typing import Any

import numpy as np


def _rounded(x: Any, scale: Any, zero: Any) -> Any:
    return np.clip(np.rint(x / scale) + zero, -128, 127)


def _dequantized(x: Any, scale: Any, zero: Any, axis: int = 1) -> Any:
    if np.ndim(scale):
        shape = [-1 if i == axis else 1 for i in range(x.ndim)]
        scale, zero = np.reshape(scale, shape), np.reshape(zero, shape)
    return (x.astype(np.float32) - zero) * scale


def _convolved(x: Any, kernel: Any, bias: Any = None) -> Any:
    y = np.einsum("bkim,nkij->bnim", x, kernel)
    return y if bias is None else y + bias.reshape(1, -1, 1, 1)


def _softmax(x: Any, axis: int) -> Any:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def _slice(x: Any, first: Any, last: Any, axis: Any) -> Any:
    return np.moveaxis(np.moveaxis(x, axis[0], 0)[first[0] : last[0]], 0, axis[0])


_OPERATIONS: dict[str, Any] = {
    "Identity": lambda x: x, "MatMul": np.matmul, "Add": np.add, "Sub": np.subtract, "Mul": np.multiply,
    "Div": np.divide, "Sqrt": np.sqrt, "Tanh": np.tanh, "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "ReduceMean": lambda x, axes, keepdims: x.mean(tuple(axes), keepdims=bool(keepdims)),
    "Reshape": lambda x, shape: x.reshape(shape), "Transpose": lambda x, perm: x.transpose(perm),
    "Gather": lambda x, index, axis: np.take(x, index, axis), "Softmax": _softmax, "Slice": _slice,
    "Concat": lambda *x, axis: np.concatenate(x, axis), "Conv": _convolved,
    "QuantizeLinear": _rounded, "DequantizeLinear": _dequantized,
}  # fmt: skip


class RKNN:
    """Of the public API what is used."""

    def __init__(self, verbose: bool = False) -> None:
        self._say("RKNN")

    def config(self, **settings: Any) -> int:
        return self._say("config", **settings)

    def load_onnx(self, model: str) -> int:
        with open(model, "rb") as file:
            self._nodes, _, _, self._constants = pickle.load(file)
        return self._say("load_onnx", operations=sorted({node[0] for node in self._nodes}))

    def build(self, do_quantization: bool = True, dataset: str | None = None) -> int:
        texts = 0
        if dataset is not None:
            with open(dataset) as file:
                texts = len([np.load(line.strip()) for line in file])
        self._say("build", do_quantization=do_quantization, texts=texts)
        fault = os.environ.get("STUB_FAULT", "")
        if fault == "die":
            print("the last words")
            os._exit(11)
        if fault == "hang":
            time.sleep(1000)
        return -1 if fault == "refuse" or (fault == "refuse codes" and not do_quantization) else 0

    def export_rknn(self, path: str) -> int:
        with open(path, "wb") as file:
            file.write(b"RKNN of a stub")
        return self._say("export_rknn")

    def init_runtime(self) -> int:
        return self._say("init_runtime")

    def inference(self, inputs: list[Any], data_format: list[str]) -> list[Any]:
        values = {**self._constants, "x": inputs[0]}
        for kind, names, outputs, attributes in self._nodes:
            values[outputs[0]] = _OPERATIONS[kind](*(values[name] for name in names), **attributes)
        self._say("inference")
        return [values["y"]]

    def release(self) -> None:
        self._say("release")

    def _say(self, call: str, **arguments: Any) -> int:
        with open(os.environ["STUB_CALLS"], "a") as file:
            file.write(json.dumps([call, arguments]) + "\n")
        return 0
