#include "step.hpp"

#include <algorithm>

#include "draw.hpp"
#include "error.hpp"

namespace rl {
namespace {

std::int64_t row_bytes(const rl_buffer &buffer) {
  return buffer.kind == RL_INT8 ? round_up(buffer.width, kTile) * buffer.planes : std::int64_t{4} * buffer.width;
}

}  // namespace

Owned<Step> Step::laid_out(const Shared<Program> &program, StepSizes sizes) {
  Owned<Step> step = make_owned<Step>(program, sizes);
  if (step == nullptr) {
    fail("not enough memory for a step; free some");
    return nullptr;
  }
  return step->check_sizes() < 0 || step->lay_out() < 0 ? nullptr : std::move(step);
}

Owned<Step> Step::create(const Shared<Program> &program, StepSizes sizes) {
  Owned<Step> step = laid_out(program, sizes);
  if (step == nullptr || step->allocate() < 0) return nullptr;
  if (!step->threads_.start(sizes.threads)) {
    fail("the system refused to start %d threads; use fewer", sizes.threads);
    return nullptr;
  }
  return step;
}

int Step::use_threads(int threads) {
  if (threads < 1 || threads > threads_.threads())
    return fail("%d threads, expected 1 to the %d that the step was made with", threads, threads_.threads());
  if (busy_.exchange(true)) return fail("the number of threads cannot change while a step runs");
  threads_.use(threads);
  busy_.store(false);
  return 0;
}

int Step::use_stream(const Shared<Stream> &stream) {
  if (&stream->program() != &program_) return fail("the stream is of another program than the step");
  if (stream->gathering_threads() < sizes_.threads)
    return fail("the stream is for steps of %d threads, and this one has %d", stream->gathering_threads(), sizes_.threads);
  if (offload_ != nullptr) return fail("the step has an NPU, whose weights cannot be streamed; use one of them");
  if (busy_.exchange(true)) return fail("the step is running; give it a stream before");
  stream_ = stream;
  busy_.store(false);
  return 0;
}

// Where everything lies in the arena: buffers by slot, then rotary angles, attention parts, logits, and each thread's
// scratch. Takes no memory for it yet.
int Step::lay_out() {
  const Array<rl_buffer> &buffers = program_.buffers();
  const rl_shape &shape = program_.shape();
  Array<std::int64_t> slot_bytes;
  if (!slot_bytes.allocate(buffers.size()) || !offsets_.allocate(buffers.size()) || !strides_.allocate(buffers.size()) ||
      !reach_.allocate(static_cast<std::size_t>(sizes_.max_rows)) ||
      !tiles_.allocate(static_cast<std::size_t>(sizes_.max_rows) + 1) ||
      !scratch_.allocate(static_cast<std::size_t>(sizes_.threads)))
    return fail("not enough memory for the tables of a step; free some");

  for (std::size_t b = 0; b < buffers.size(); ++b) {
    strides_[b] = row_bytes(buffers[b]);
    auto &bytes = slot_bytes[static_cast<std::size_t>(buffers[b].slot)];
    bytes = std::max(bytes, round_up(strides_[b] * sizes_.max_rows, 64));
  }
  std::int64_t used = 0;
  for (auto &bytes : slot_bytes) {
    const std::int64_t start = used;
    used += bytes;
    bytes = start;
  }
  for (std::size_t b = 0; b < buffers.size(); ++b) offsets_[b] = slot_bytes[static_cast<std::size_t>(buffers[b].slot)];

  angles_offset_ = used;
  used += round_up(static_cast<std::int64_t>(program_.turnings().size()) * sizes_.max_rows * shape.head_dim * 4, 64);
  std::int64_t attention = 0, partial = 0;
  parts_offset_ = used;
  if (program_.has_cache()) {
    attention = kAttentionFloats;
    partial = partial_floats(shape.heads / shape.kv_heads, program_.head_stride());
    used += round_up(std::int64_t{kPartsPerThread} * sizes_.threads * program_.most_splits() * partial * 4, 64);
  }
  logits_offset_ = used;
  used += round_up(std::int64_t{4} * sizes_.logit_rows * program_.vocab(), 64);

  std::int64_t row_floats = 1, weight_bytes = 0;
  for (const rl_buffer &buffer : buffers) row_floats = std::max<std::int64_t>(row_floats, buffer.width);
  for (const rl_band &band : program_.bands()) weight_bytes = std::max(weight_bytes, block_bytes(band.cols));
  ScratchPlan &s = scratch_plan_;
  s.weights = kTableBytes;
  s.excess = s.weights + round_up(weight_bytes, 64);
  s.row = s.excess + round_up(std::int64_t{4} * 2 * sizes_.max_rows, 64);
  s.attention = s.row + round_up(4 * row_floats, 64) + 64;
  s.partial = s.attention + round_up(4 * attention, 64);
  s.drawing = s.partial + round_up(std::int64_t{4} * 2 * kTileRows * partial, 64);
  s.bytes = round_up(s.drawing + (sizes_.logit_rows > 0 ? drawing_bytes(program_.vocab()) : 0), 4096);
  s.first = round_up(used, 4096);
  arena_bytes_ = s.first + sizes_.threads * s.bytes;
  return 0;
}

int Step::allocate() {
  if (!arena_.allocate(static_cast<std::size_t>(arena_bytes_)))
    return fail("not enough memory for an arena of %lld bytes; use fewer rows a step",
                static_cast<long long>(arena_bytes_));
  std::uint8_t *base = arena_.data() + scratch_plan_.first;
  for (Scratch &scratch : scratch_) {
    scratch = Scratch{nullptr,
                      reinterpret_cast<std::int8_t *>(base),
                      base + scratch_plan_.weights,
                      reinterpret_cast<std::int32_t *>(base + scratch_plan_.excess),
                      reinterpret_cast<float *>(base + scratch_plan_.row),
                      reinterpret_cast<float *>(base + scratch_plan_.attention),
                      reinterpret_cast<float *>(base + scratch_plan_.partial),
                      base + scratch_plan_.drawing};
    base += scratch_plan_.bytes;
  }
  return 0;
}

void *Step::buffer(int number) {
  if (number < 0 || static_cast<std::size_t>(number) >= offsets_.size()) {
    fail("there is no buffer %d; the program has %zu", number, offsets_.size());
    return nullptr;
  }
  return at<void>(number, 0);
}

}  // namespace rl
