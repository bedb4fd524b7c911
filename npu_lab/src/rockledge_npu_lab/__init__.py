"""The NPU's laboratory: what stands in for an RK3588's NPU, and what checks and shows its programs.

A distribution of its own, `rockledge-npu-lab`. It imports `rockledge`, which knows it in four commands only
(`rockledge npu emulate`, `demo`, `disasm`, `verify`).
"""
