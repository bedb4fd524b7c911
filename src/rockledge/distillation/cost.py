"""Time and money of a distillation by formula: floating-point operations over what a GPU really reaches."""

from dataclasses import dataclass

from rockledge.model.block import decoder
from rockledge.model.config import ModelConfig


@dataclass(frozen=True)
class Hardware:
    """GPUs of one kind. `peak_tflops` are dense bfloat16, `utilisation` the part of them that training
    reaches; `memory_gb` in units of 2^30 bytes, `bandwidth_tb_s` its speed in units of 10^12."""

    gpu: str = "H100 SXM"
    gpus: int = 1
    memory_gb: float = 80.0
    bandwidth_tb_s: float = 3.35
    peak_tflops: float = 989.0
    utilisation: float = 0.38
    usd_per_gpu_hour: float = 2.5


HARDWARE_SOURCES = {
    "hardware.memory_gb": "NVIDIA H100 datasheet",
    "hardware.bandwidth_tb_s": "NVIDIA H100 datasheet",
    "hardware.peak_tflops": "NVIDIA H100 datasheet: 1,979 TFLOPS bfloat16 with sparsity, half of it dense",
    "hardware.utilisation": "Llama 3 reached 38 to 43% of the peak (arXiv 2407.21783, table 4)",
    "hardware.usd_per_gpu_hour": "H100 on demand, 2.00 to 2.50 USD (SpendArk, May 2026)",
}


@dataclass(frozen=True)
class Cost:
    """Of a whole run."""

    flops: float
    gpu_hours: float
    hours: float
    usd: float


def forward_flops(config: ModelConfig, length: int) -> float:
    """Operations of a forward pass for one token of a sequence: two for each weight of a linear, the head's
    too, and 4 * d for each of the length / 2 positions that a head of size d sees on average (arXiv
    2204.02311, appendix B, with the half that a causal mask leaves)."""
    tree = decoder(config)
    weights = sum(linear.rows * linear.cols for layer in tree.layers for linear in layer.linears)
    head = config.hidden * config.vocab
    return 2.0 * (weights + head) + 2.0 * config.layers * config.heads * config.head_dim * length


def token_flops(
    student: ModelConfig, teacher: ModelConfig | None, length: int, *, checkpointing: bool, lora: bool
) -> float:
    """Operations of learning one token. A backward pass costs two forward passes, with LoRA one and a little
    (no gradients of the base weights), and checkpointing one more."""
    forward = forward_flops(student, length)
    passes = (2.0 if lora else 3.0) + checkpointing
    return passes * forward + (forward_flops(teacher, length) if teacher is not None else 0.0)


def writing_seconds(config: ModelConfig, tokens: int, hardware: Hardware) -> float:
    """What it takes at least to write so many tokens one after the other, in any number of answers at a time:
    for each, all weights are read once, which are float32 while they learn."""
    return tokens * decoder(config).parameters * 4 / (hardware.bandwidth_tb_s * 1e12)


def cost(flops: float, hardware: Hardware, seconds: float = 0.0) -> Cost:
    """What so many operations, and so many seconds on one GPU, take on that hardware."""
    seconds += flops / (hardware.peak_tflops * 1e12 * hardware.utilisation)
    hours = seconds / 3600
    return Cost(flops, hours, hours / hardware.gpus, hours * hardware.usd_per_gpu_hour)
