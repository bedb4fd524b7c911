"""Operators on an open NPU, in a process of its own, which takes orders as `npu_worker`."""

import numpy as np
from tests.runtime import npu_worker
from tests.runtime.held import held

from rockledge.errors import NpuError
from rockledge.npu.programs.activations import exp, gelu, multiply, residual_add, silu
from rockledge.npu.programs.attention import attention, causal_mask
from rockledge.npu.programs.attention_by_bits import attention_by_bits
from rockledge.npu.programs.feed_forward import feed_forward
from rockledge.npu.programs.norms import layernorm, rmsnorm, seen
from rockledge.npu.programs.requantised_product import requantised_product
from rockledge.npu.programs.softmax import softmax
from rockledge.npu.requantise import fit_tensor
from rockledge.runtime.npu_cores import prove
from rockledge.runtime.npu_device import NpuDevice
from rockledge.runtime.npu_operator import run_operator


def made(name):
    """An operator and inputs for it."""
    random = np.random.default_rng(len(name))
    x, y = (random.standard_normal((13, 200)).astype(np.float16) for _ in range(2))
    tokens, kernels = (random.integers(-128, 128, (rows, 200)).astype(np.int8) for rows in (13, 100))
    gamma, beta = random.standard_normal((2, 200))
    gate, up, down = (
        random.standard_normal(shape).astype(np.float16) for shape in ((90, 200), (90, 200), (200, 90))
    )
    return {
        "silu": lambda: (silu(13, 200, -4, 5), {"x": x}),
        "gelu": lambda: (gelu(13, 200, -6, 6), {"x": x}),
        "exp": lambda: (exp(13, 200), {"x": -np.abs(x)}),
        "gate times up": lambda: (multiply(13, 200), {"gate": x, "up": y}),
        "residual": lambda: (residual_add(13, 200), {"x": x, "delta": y}),
        "softmax": lambda: (softmax(13, 200), {"x": x}),
        "rmsnorm": lambda: (rmsnorm(13, gamma, 1e-5, seen(x)), {"x": x}),
        "feed-forward": lambda: (feed_forward(13, gate, up, down, 20.0).operator, {"x": x}),
        "attention": lambda: (
            attention(13, gate, up),
            {"q": x / np.float16(14), "mask": causal_mask(13, 90, 50)},
        ),
        "attention by bits": lambda: by_bits(x / np.float16(14), gate, up),
        "requantised product": lambda: (
            requantised_product(13, kernels, fit_tensor(1e-3, -100_000, 100_000)),
            {"x": tokens},
        ),
        "layernorm": lambda: (
            layernorm(13, gamma, beta, 1e-5, seen(x, centred=True)),
            {"x": x, "ones": np.ones((13, 32), np.float16)},
        ),
    }[name]()


def by_bits(q, keys, values):
    block = attention_by_bits(len(q), keys, values, 0.0)
    return block.operator, block.arrays(q, causal_mask(len(q), len(keys), 50))


def operate(driver, names):
    """Which results of operators equal their twins to the bit, what went wrong, and what the device says."""
    before = held()
    equal, errors, about = {}, [], None
    with NpuDevice(driver) as device:
        prove(device, 2000, 0)
        for name in names:
            operator, arrays = made(name)
            try:
                found = run_operator(device, operator, arrays)
                equal[name] = found.tobytes() == operator.twin(arrays).tobytes()
            except NpuError as error:
                errors.append(str(error))
        about = vars(device.describe())
    return {"equal": equal, "errors": errors, "about": about, "held": [before, held()]}


npu_worker.ORDERS["operate"] = operate

if __name__ == "__main__":
    npu_worker.main()
