"""Runs in the environment that has the vendor's toolkit, never in ours: builds operators as ONNX graphs and
turns them into .rknn files. It imports nothing of Rockledge.

Only the toolkit's public API is used: RKNN.config, load_onnx, build, export_rknn, init_runtime (its
simulator) and inference. Each line of the standard input is the path of a folder with a job.json; its
`result.json` is written there, and a byte to the descriptor that the last argument names.
"""

import json
import math
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17  # 2.5.0 takes less than 20
IR_VERSION = 9

Weights = dict[str, Any]
Job = dict[str, Any]


class Graph:
    """An ONNX graph that is being written; every method returns the name of what it has added.

    With `codes` the weights of a linear are int8 codes and row scales, and its input and output are rounded
    by scales of their own (QuantizeLinear and DequantizeLinear around a convolution of one by one, which the
    toolkit takes as it is). Without, they are floats that the toolkit rounds by its samples.
    """

    def __init__(self, codes: bool) -> None:
        self.codes = codes
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.count = 0

    def constant(self, values: Any, kind: Any = None) -> str:
        name = self._name("c")
        values = np.asarray(values)
        kind = kind or (np.int64 if values.dtype.kind == "i" else np.float32)
        self.constants.append(numpy_helper.from_array(np.asarray(values, kind).copy(), name))
        return name

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = self._name(kind.lower())
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def linear(self, x: str, weights: Weights, role: str) -> str:
        bias = weights.get(role + ".bias")
        if not self.codes:
            y = self.add("MatMul", x, self.constant(weights[role].T))
            return y if bias is None else self.add("Add", y, self.constant(bias))
        codes, scale = weights[role + ".codes"], weights[role + ".scale"]
        rows, cols = codes.shape
        y = self.add(
            "Reshape", self.add("Transpose", x, perm=[1, 0]), self.constant(np.array([1, cols, 1, -1]))
        )
        y = self._rounded(y, weights[role + ".in"])
        kernel = self.add(
            "DequantizeLinear",
            self.constant(codes.reshape(rows, cols, 1, 1), np.int8),
            self.constant(scale),
            self.constant(np.zeros(rows), np.int8),
            axis=0,
        )
        parts = [y, kernel] if bias is None else [y, kernel, self.constant(bias)]
        y = self._rounded(self.add("Conv", *parts), weights[role + ".out"])
        y = self.add("Reshape", y, self.constant(np.array([rows, -1])))
        return self.add("Transpose", y, perm=[1, 0])

    def _rounded(self, x: str, scale: Any) -> str:
        ends = [self.constant(np.float32(scale)), self.constant(np.zeros(()), np.int8)]
        return self.add("DequantizeLinear", self.add("QuantizeLinear", x, *ends), *ends)

    def norm(self, x: str, gain: Any, eps: float) -> str:
        mean = self.add("ReduceMean", self.add("Mul", x, x), axes=[-1], keepdims=1)
        root = self.add("Sqrt", self.add("Add", mean, self.constant(np.float32(eps))))
        y = self.add("Div", x, root)
        return y if gain is None else self.add("Mul", y, self.constant(gain))

    def model(self, x: str, x_shape: Any, y: str, y_shape: Any) -> Any:
        nodes = [*self.nodes, helper.make_node("Identity", [y], ["y"])]
        ends = [
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))]
            for name, shape in ((x, x_shape), ("y", y_shape))
        ]
        graph = helper.make_graph(nodes, "rockledge", ends[0], ends[1], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model)
        return model

    def _name(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"


def linear_model(job: Job, weights: Weights, codes: bool) -> Any:
    """[rows, inputs] times a matrix."""
    graph, rows = Graph(codes), job["rows"]
    y = graph.linear("x", weights, "w")
    return graph.model("x", (rows, job["inputs"]), y, (rows, job["outputs"]))


def block_model(job: Job, weights: Weights, codes: bool) -> Any:
    """A decoder layer over [rows, hidden] from position 0 on."""
    graph, rows, hidden = Graph(codes), job["rows"], job["inputs"]
    x = "x"
    for branch in job["branches"]:
        body = branch["body"]
        y = x
        if branch["before"]:
            y = graph.norm(y, weights.get(branch["before"]), job["eps"])
        y = (attention if body["kind"] == "attention" else gated)(graph, job, body, weights, y)
        if branch["after"]:
            y = graph.norm(y, weights.get(branch["after"]), job["eps"])
        x = graph.add("Add", x, y)
    return graph.model("x", (rows, hidden), x, (rows, hidden))


def attention(graph: Graph, job: Job, body: Job, weights: Weights, x: str) -> str:
    rows, head = job["rows"], body["head_dim"]
    parts = {}
    for role, norm, heads in (("q", "q_norm", "heads"), ("k", "k_norm", "kv_heads"), ("v", None, "kv_heads")):
        y, heads = graph.linear(x, weights, body[role]), body[heads]
        gain = None if norm is None or body[norm] is None else weights[body[norm]]
        whole = gain is not None and gain.size != head
        if whole:
            y = graph.norm(y, gain, job["eps"])
        y = graph.add("Reshape", y, graph.constant(np.array([rows, heads, head])))
        y = graph.add("Transpose", y, perm=[1, 0, 2])
        if gain is not None and not whole:
            y = graph.norm(y, gain, job["eps"])
        if role != "v" and body["turned"]:
            y = turned(graph, y, weights["cos"], weights["sin"], head)
        if heads != body["heads"]:
            each = body["heads"] // heads
            index = np.repeat(np.arange(heads), each)
            y = graph.add("Gather", y, graph.constant(index), axis=0)
        parts[role] = y
    q = parts["q"]
    if "growth" in weights:
        q = graph.add("Mul", q, graph.constant(weights["growth"].reshape(1, rows, 1)))
    scores = graph.add("MatMul", q, graph.add("Transpose", parts["k"], perm=[0, 2, 1]))
    scores = graph.add("Mul", scores, graph.constant(np.float32(body["scale"])))
    if body["softcap"]:
        cap = graph.constant(np.float32(body["softcap"]))
        scores = graph.add("Mul", graph.add("Tanh", graph.add("Div", scores, cap)), cap)
    behind = np.arange(rows)[:, None] - np.arange(rows)
    hidden = (behind < 0) | (behind >= (body["window"] or rows))
    scores = graph.add("Add", scores, graph.constant(np.where(hidden, -1e4, 0.0)))
    mixed = graph.add("MatMul", graph.add("Softmax", scores, axis=-1), parts["v"])
    mixed = graph.add("Transpose", mixed, perm=[1, 0, 2])
    mixed = graph.add("Reshape", mixed, graph.constant(np.array([rows, body["heads"] * head])))
    return graph.linear(mixed, weights, body["out"])


def turned(graph: Graph, y: str, cos: Any, sin: Any, head: int) -> str:
    """The rotary embedding: pairs half of the turned channels apart."""
    half = cos.shape[1]

    def cut(first: int, last: int) -> str:
        bounds = [graph.constant(np.array([n])) for n in (first, last, 2)]
        return graph.add("Slice", y, *bounds)

    first, second = cut(0, half), cut(half, 2 * half)
    c, s = graph.constant(cos), graph.constant(sin)
    left = graph.add("Sub", graph.add("Mul", first, c), graph.add("Mul", second, s))
    right = graph.add("Add", graph.add("Mul", second, c), graph.add("Mul", first, s))
    rest = [cut(2 * half, head)] if 2 * half < head else []
    return graph.add("Concat", left, right, *rest, axis=-1)


def gated(graph: Graph, job: Job, body: Job, weights: Weights, x: str) -> str:
    gate, up = (graph.linear(x, weights, body[role]) for role in ("gate", "up"))
    if body["activation"] == "silu":
        active = graph.add("Mul", gate, graph.add("Sigmoid", gate))
    else:
        cube = graph.add("Mul", graph.add("Mul", gate, gate), gate)
        inner = graph.add("Add", gate, graph.add("Mul", cube, graph.constant(np.float32(0.044715))))
        inner = graph.add("Mul", inner, graph.constant(np.float32(math.sqrt(2 / math.pi))))
        one = graph.add("Add", graph.add("Tanh", inner), graph.constant(np.float32(1)))
        active = graph.add("Mul", graph.add("Mul", gate, one), graph.constant(np.float32(0.5)))
    return graph.linear(graph.add("Mul", active, up), weights, body["down"])


def checked(code: object, what: str) -> None:
    if code not in (0, None):
        raise RuntimeError(f"{what} returned {code}")


def built(folder: Path) -> None:
    """Does the job in `folder`: writes its .rknn file, and what the simulator makes of the inputs."""
    from rknn.api import RKNN

    job = json.loads((folder / "job.json").read_text())
    weights = dict(np.load(folder / "weights.npz"))
    model = (linear_model if job["kind"] == "linear" else block_model)(job, weights, job["codes"])
    onnx.save(model, str(folder / "model.onnx"))
    (folder / "samples.txt").write_text("".join(f"{folder / name}\n" for name in job["samples"]))
    toolkit = RKNN(verbose=False)
    try:
        checked(toolkit.config(target_platform=job["platform"], quantized_dtype=job["type"]), "config")
        checked(toolkit.load_onnx(model=str(folder / "model.onnx")), "load_onnx")
        rounding = (
            {"do_quantization": False}  # the graph has its scales
            if job["codes"]
            else {"do_quantization": True, "dataset": str(folder / "samples.txt")}
        )
        checked(toolkit.build(**rounding), "build")
        checked(toolkit.export_rknn(str(folder / "model.rknn")), "export_rknn")
        if job["simulate"]:
            checked(toolkit.init_runtime(), "init_runtime")
            inputs = np.load(folder / "inputs.npy")
            outputs = [toolkit.inference(inputs=[x], data_format=["nchw"])[0] for x in inputs]
            np.save(folder / "simulated.npy", np.stack(outputs).astype(np.float32))
    finally:
        toolkit.release()


def main() -> None:
    done = int(sys.argv[-1])
    for line in sys.stdin:
        folder = Path(line.rstrip("\n"))
        result: dict[str, str | None] = {"error": None}
        try:
            built(folder)
        except Exception as error:  # whatever the toolkit raises is named to the user
            traceback.print_exc()
            result["error"] = f"{type(error).__name__}: {error}"
        (folder / "result.json").write_text(json.dumps(result))
        os.write(done, b".")


if __name__ == "__main__":
    main()
