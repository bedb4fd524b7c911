"""As much of the onnx package as the toolkit's script uses: a graph is a tuple, a model file a pickle."""

import pickle
from types import SimpleNamespace
from typing import Any

TensorProto = SimpleNamespace(FLOAT="float32")


def _node(kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> tuple[Any, ...]:
    return kind, inputs, outputs, attributes


helper = SimpleNamespace(
    make_node=_node,
    make_tensor_value_info=lambda name, kind, shape: (name, shape),
    make_graph=lambda nodes, name, inputs, outputs, constants: (nodes, inputs, outputs, dict(constants)),
    make_model=lambda graph, opset_imports: SimpleNamespace(graph=graph, opsets=opset_imports, ir_version=0),
    make_opsetid=lambda domain, number: (domain, number),
)
numpy_helper = SimpleNamespace(from_array=lambda values, name: (name, values))
checker = SimpleNamespace(check_model=lambda model: None)


def save(model: Any, path: str) -> None:
    with open(path, "wb") as file:
        pickle.dump(model.graph, file)
