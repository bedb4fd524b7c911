"""The memory of a training step by formula, from shapes alone.

What is counted, in bytes for one device:

- weights, gradients and the two states of Adam, float32 each, for what learns; divided by the devices that
  share them (FSDP, arXiv 2304.11277);
- with bfloat16, the copy of the weights that autocast makes for the matrix products; where devices share
  the weights, instead of it those of two layers and of embedding and head, which FSDP gathers in turn;
- activations that the backward pass reads, layer by layer, as transformers' decoders keep them: six
  vectors of the hidden size around norms and residuals (with bfloat16 two more, rounded), queries, keys,
  values and the result of attention, and four vectors of the feed-forward's size. With checkpointing only
  the input of every layer is kept, and one layer is computed again at a time (arXiv 1604.06174);
- the logits and their gradient, and what the loss has of the part that it works on, or after that the
  gradient of the head;
- the teacher's weights, whole on every device, and its logits while it is asked.

`bench/distil_memory.py` holds the formula to what PyTorch's allocator counts in real steps.
"""

from dataclasses import dataclass

from rockledge.model.block import decoder
from rockledge.model.config import ModelConfig

_FLOAT, _HALF = 4, 2
# As in top_logits.CHUNK_NUMBERS, which this module must not import: it comes with PyTorch.
_LOSS_CHUNK = 1 << 26
_GATHERED_LAYERS = 2  # the one that computes and the one that is fetched meanwhile
# float32 copies of a chunk of logits that the loss has at a time, itself and gradients, as measured.
_LOSS_COPIES = 5


@dataclass(frozen=True)
class Setup:
    """How a step is run: `tokens` of one micro-batch, of `micro_batches` that a step has, on `devices` that
    share what learns; `lora` is the rank, 0 to train all of the student."""

    tokens: int
    bf16: bool
    checkpointing: bool
    micro_batches: int = 1
    devices: int = 1
    lora: int = 0


@dataclass(frozen=True)
class StepMemory:
    """Bytes on one device, by what they are for. `accumulated`: gradients of earlier micro-batches are there
    while the loss is computed; else they grow as activations go."""

    weights: int
    gradients: int
    optimizer: int
    copies: int
    activations: int
    logits: int
    teacher: int
    accumulated: bool

    @property
    def peak(self) -> int:
        """The more of two moments: when the backward pass begins, and when it has ended."""
        begins = self.activations + self.logits + (self.gradients if self.accumulated else 0)
        return self.always + max(begins, self.gradients)

    @property
    def always(self) -> int:
        """What is there at any time."""
        return self.weights + self.optimizer + self.copies + self.teacher

    @property
    def parts(self) -> dict[str, int]:
        """The bytes by name."""
        return {name: size for name, size in vars(self).items() if name != "accumulated"}


def step_memory(student: ModelConfig, teacher: ModelConfig | None, setup: Setup) -> StepMemory:
    """The memory of a step with these models; `teacher` None for one whose logits are cached, or for none."""
    parameters = decoder(student).parameters
    learns = parameters if not setup.lora else lora_parameters(student, setup.lora)
    small = _HALF if setup.bf16 else _FLOAT
    weights = _FLOAT * (parameters + (learns if setup.lora else 0)) // setup.devices
    layer = _layer_bytes(student, setup, small)
    inputs = _FLOAT * student.hidden * setup.tokens
    if setup.checkpointing:
        activations = student.layers * inputs + layer
    else:
        activations = student.layers * layer
    rows = min(setup.tokens, max(1, _LOSS_CHUNK // student.vocab))
    head = 0 if setup.lora else student.hidden * student.vocab
    working = _FLOAT * max(_LOSS_COPIES * rows * student.vocab, head)
    logits = 2 * small * setup.tokens * student.vocab + working
    return StepMemory(
        weights=weights,
        gradients=_FLOAT * learns // setup.devices,
        optimizer=2 * _FLOAT * learns // setup.devices,
        copies=_copies(student, setup, small),
        activations=activations + 3 * inputs,
        logits=logits,
        teacher=0 if teacher is None else small * decoder(teacher).parameters,
        accumulated=setup.micro_batches > 1,
    )


def lora_parameters(config: ModelConfig, rank: int) -> int:
    """Numbers of an adapter of that rank on every linear but the head."""
    return sum(
        rank * (linear.rows + linear.cols) for layer in decoder(config).layers for linear in layer.linears
    )


def written_bytes(config: ModelConfig, tokens: int, bf16: bool) -> int:
    """Keys and values of so many tokens, which a student keeps while it writes them."""
    small = _HALF if bf16 else _FLOAT
    return 2 * config.layers * config.kv_heads * config.head_dim * small * tokens


def _copies(config: ModelConfig, setup: Setup, small: int) -> int:
    """The second copy of weights that a step works with."""
    tree = decoder(config)
    if setup.devices == 1:
        return _HALF * tree.parameters if setup.bf16 else 0
    layer = sum(linear.rows * linear.cols for linear in tree.layers[0].linears)
    ends = config.hidden * config.vocab * (1 if config.tied else 2)
    return small * (_GATHERED_LAYERS * layer + ends)


def _layer_bytes(config: ModelConfig, setup: Setup, small: int) -> int:
    """What one layer keeps for its backward pass."""
    heads, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    norms = 6 * config.hidden * _FLOAT + (2 * config.hidden * small if small != _FLOAT else 0)
    attention = (2 * heads + 2 * kv) * small + config.heads * _FLOAT
    feed_forward = 4 * config.ffn * small
    return setup.tokens * (norms + attention + feed_forward)
