"""Facts behind operators that are not int8 products on the NPU: products of wider types, softmax, norms.

All are others' measurements on an RK3588, because nobody's formula explains them: an operator without a
product is bound by how many programs it takes, and by a table look-up for every element.
"""

from rockledge.board.facts import Fact

NPU_OPERATOR_FACTS: dict[str, Fact] = {
    "npu_wide_macs_per_cycle": Fact(
        512, "MAC/cycle/core", "RK3588 TRM, chapter 36: fp16, bf16 and int16 alike", "published"
    ),
    "npu_softmax_seconds": Fact(
        471e-6 / (256 * 64),
        "s/element",
        "256 x 64 in 471 us by nine programs of the closed compiler, replayed bit for bit; by its own about "
        "30 ns an exponential (oRKLLM/ork-driver OPS_REGISTRY, ATTN_REDERIVE_WIP.md)",
        "derived",
    ),
    "npu_norm_elements": Fact(
        512 * 3840 / 60,
        "elements",
        "of an RMSNorm in a submit: about 60 for 512 x 3840 (gregordinary/rockchip-npu-notes "
        "encodings/rmsnorm-onnpu.md); the same page's limit of a pass over a table, 32,768",
        "derived",
    ),
}
