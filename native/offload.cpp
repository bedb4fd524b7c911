// Which linears of a step go to the NPU, and what the threads do for them: rows quantised into its input, weights
// unpacked into its slots, floats made of its sums. Their order is that of npu/offload.hpp.
#include <cstring>

#include "error.hpp"
#include "step.hpp"

namespace rl {
namespace {

constexpr int kStripsTogether = 4;  // 32 columns, which no lane divides: two cache lines of a row

bool makes_codes(const rl_op &op) {
  return op.code == RL_NORM_QUANT || op.code == RL_QUANT || op.code == RL_GATED_QUANT;
}
int expected_units(const npu::Offload::Duty &duty) {
  return (duty.expected + kCheckVectors - 1) / kCheckVectors;
}
bool reads(const rl_op &op, int buffer) { return op.in[0] == buffer || op.in[1] == buffer || op.in[2] == buffer; }
bool writes(const rl_op &op, int buffer) { return op.out[0] == buffer || op.out[1] == buffer || op.out[2] == buffer; }

}  // namespace

int Step::use_npu(const Shared<npu::Npu> *npu, const rl_npu_plan *plan) {
  if (npu != nullptr && stream_) return fail("the step's weights are streamed, which the NPU cannot use; use one of them");
  if (busy_.exchange(true)) return fail("this step is running; wait for it before its NPU changes");
  attention_.reset();  // which uses what the linears hold
  offload_.reset();
  int result = 0;
  if (npu != nullptr) {
    Array<npu::LinearFacts> facts;
    result = check_offload(*plan, facts);
    Owned<npu::Plan> checked = result < 0 ? nullptr : npu::Plan::create(*npu, *plan, facts);
    if (checked != nullptr) offload_ = npu::Offload::create(std::move(checked), threads_.threads());
    result = offload_ == nullptr ? -1 : 0;
  }
  busy_.store(false);
  return result;
}

void Step::npu_work(rl_npu_work &work) const {
  if (offload_ != nullptr) offload_->work(work);
}

// What the plan has to fit, and the operations that it concerns.
int Step::check_offload(const rl_npu_plan &plan, Array<npu::LinearFacts> &facts) {
  const int n_ops = static_cast<int>(program_.ops().size());
  if (plan.linears == nullptr || plan.n_linears < 1 || plan.n_linears > n_ops)
    return fail("a plan has %d linears, expected 1 to %d, the operations of the program", plan.n_linears, n_ops);
  if (!facts.allocate(static_cast<std::size_t>(plan.n_linears)) || !offloaded_.allocate(program_.ops().size()) ||
      !feeds_.allocate(program_.ops().size()))
    return fail("not enough memory for a plan of the NPU; free some memory");
  std::fill(offloaded_.begin(), offloaded_.end(), -1);
  std::fill(feeds_.begin(), feeds_.end(), -1);
  int before = -1;
  for (int i = 0; i < plan.n_linears; ++i) {
    const int number = plan.linears[i].op;
    if (number <= before || number >= n_ops)
      return fail("linear %d of a plan is operation %d, expected one from %d to %d in rising order", i, number,
                  before + 1, n_ops - 1);
    const rl_op &op = program_.ops()[static_cast<std::size_t>(number)];
    if (op.code != RL_LINEAR || op.on_logits != 0 || op.out[0] == kStepLogits)
      return fail("operation %d has code %d, expected a linear of all rows", number, op.code);
    const auto first = static_cast<std::size_t>(op.first_band), bands = static_cast<std::size_t>(op.bands);
    for (std::size_t b = first; b < first + bands; ++b)
      if (program_.bands()[b].out_column != kStrip * (program_.strips_before(b) - program_.strips_before(first)))
        return fail("band %zu begins at column %d of operation %d, expected strips of %d columns without a gap", b,
                    program_.bands()[b].out_column, number, kStrip);
    const int producer = producer_of(number);
    if (producer <= before || check_reader(number, producer) < 0)
      return producer <= before ? fail("the input of operation %d is not quantised for it alone", number) : -1;
    const rl_buffer &in = program_.buffers()[static_cast<std::size_t>(op.in[0])];
    facts[static_cast<std::size_t>(i)] = npu::LinearFacts{static_cast<std::int32_t>(round_up(in.width, kTile)), in.planes,
                                                          program_.strips_before(first + bands) - program_.strips_before(first)};
    offloaded_[static_cast<std::size_t>(number)] = i;
    feeds_[static_cast<std::size_t>(producer)] = i;
    before = number;
  }
  return 0;
}

// The operation that makes the input of a linear, or -1.
int Step::producer_of(int number) const {
  const int input = program_.ops()[static_cast<std::size_t>(number)].in[0];
  for (int i = number - 1; i >= 0; --i) {
    const rl_op &op = program_.ops()[static_cast<std::size_t>(i)];
    if (writes(op, input)) return makes_codes(op) && op.out[0] == input && op.on_logits == 0 ? i : -1;
  }
  return -1;
}

// The codes that an operation makes for the NPU are not in its buffer, so nobody else may want them.
int Step::check_reader(int number, int producer) const {
  const int input = program_.ops()[static_cast<std::size_t>(number)].in[0];
  for (int i = producer + 1; i < static_cast<int>(program_.ops().size()); ++i) {
    const rl_op &op = program_.ops()[static_cast<std::size_t>(i)];
    if (i != number && reads(op, input))
      return fail("operations %d and %d read the codes of operation %d, expected one linear on the NPU", number, i, producer);
    if (writes(op, input)) break;
  }
  return 0;
}

void Step::begin_offloads() {
  offloads_ = offload_ != nullptr && offload_->takes(batch_.rows);
  feeding_ = attended_ = wrong_once_ = false;
  fed_ = -1;
  if (offloads_) offload_->begin_step(batch_.rows);
}

// The current operation: whether it is a linear on the NPU, or makes the input of one.
bool Step::begin_offload() {
  feeding_ = false;
  const int linear = offloaded_[static_cast<std::size_t>(current_)];
  if (linear >= 0 && linear == fed_) {
    fed_ = -1;
    offloading_ = true;
    offload_->begin_linear(linear);
    return true;
  }
  const int next = feeds_[static_cast<std::size_t>(current_)];
  if (next >= 0 && offload_->plan().linear(next).op < end_ && !offload_->stopped()) {
    feeding_ = true;
    fed_ = next;
  }
  return false;
}

// The next phase of a linear on the NPU; no units when it is done, or the step begins anew.
Phase Step::offload_phase() {
  const npu::Plan &plan = offload_->plan();
  if (offload_->next()) {
    const npu::Offload::Duty &duty = offload_->duty();
    int units = duty.unpack < 0 ? 0 : plan.strips(duty.unpack);
    if (duty.epilogue >= 0) units += (plan.strips(duty.epilogue) + kStripsTogether - 1) / kStripsTogether;
    units += offload_->syncs() + expected_units(duty);
    return Phase{static_cast<std::uint32_t>(units), 1};
  }
  offloading_ = false;
  if (offload_->broken()) begin_again();
  return Phase{0, 1};
}

// From the first operation, which makes everything that others read and add to; without it, that is lost.
void Step::begin_again() {
  if (first_ > 0) {
    cut_off_ = true;
    end_ = 0;
    return;
  }
  current_ = first_ - 1;
  begun_ = 0;
  offloads_ = offload_->takes(batch_.rows);
  fed_ = -1;
  offload_->begin_step_again();
}

void Step::offload_work(const rl_op &op, std::uint32_t first, std::uint32_t count, int thread) {
  const npu::Offload::Duty &duty = offload_->duty();
  const int groups =
      duty.epilogue < 0 ? 0 : (offload_->plan().strips(duty.epilogue) + kStripsTogether - 1) / kStripsTogether;
  const int strips = duty.unpack < 0 ? 0 : offload_->plan().strips(duty.unpack), expected = expected_units(duty);
  const int begin = static_cast<int>(first), end = begin + static_cast<int>(count);
  for (int unit = begin; unit < end; ++unit) {
    if (unit < groups)
      finish_strips(op, duty, unit, thread);
    else if (unit < groups + strips)
      unpack_strip(duty.unpack, unit - groups, thread);
    else if (unit < groups + strips + expected)
      expect_sums(kCheckVectors * (unit - groups - strips));
    else  // last, when units are handed out one by one: these take longest
      offload_->sync(unit - groups - strips - expected);
  }
}

void Step::finish_strips(const rl_op &op, const npu::Offload::Duty &duty, int group, int thread) {
  const npu::Plan &plan = offload_->plan();
  const int number = plan.linear_of(duty.epilogue), in_lane = plan.strips_in_lane(number);
  const rl_npu_shape &shape = plan.shape_of(number);
  const rl_npu_size &size = plan.size_of(number, batch_.rows);
  const int strip = group * kStripsTogether, lane = strip / in_lane;
  const int count = std::min(kStripsTogether, plan.strips(duty.epilogue) - strip);
  const int first_strip = plan.first_strip(duty.epilogue) + strip;
  LaneSums sums{reinterpret_cast<const std::int32_t *>(plan.output(duty.parity, lane)),
                      static_cast<std::int64_t>(size.rows) * shape.planes * shape.lane_columns,
                      size.tile_starts,
                      size.n_tiles,
                      size.sums,
                      shape.lane_columns,
                      offload_->checksum().factors(first_strip),
                      offload_->checksum().sums(thread)};
  int column = (strip - lane * in_lane) * kStrip;
  program_.each_band(op, first_strip, count, [&](std::size_t band, int first, int last) {
    program_.kernels().finish_lane(linear_task(op, band), sums, column, first, last);
    column += (last - first) * kStrip;
    sums.factors += (last - first) * kStrip;
  });
}

void Step::unpack_strip(int block, int strip, int thread) {
  const npu::Plan &plan = offload_->plan();
  const int number = plan.linear_of(block), in_lane = plan.strips_in_lane(number), lane = strip / in_lane;
  const rl_npu_shape &shape = plan.shape_of(number);
  const rl_op &op = program_.ops()[static_cast<std::size_t>(plan.linear(number).op)];
  auto *to = reinterpret_cast<std::int8_t *>(plan.slot(plan.slot_of(block), lane));
  // Four strips are side by side in a run of 32 columns: so far are their tiles apart.
  constexpr int kTileBytes = kStrip * kTile, kApart = 4 * kTileBytes;
  const int run = (strip - lane * in_lane) / 4, quarter = strip % 4, first_strip = plan.first_strip(block) + strip;
  program_.each_band(op, first_strip, 1, [&](std::size_t band, int first, int) {
    for (int p = 0; p < shape.n_parts; ++p) {
      const int start = shape.part_starts[p], tiles = (shape.part_starts[p + 1] - start) / kTile;
      std::int8_t *at = to + static_cast<std::int64_t>(start) * shape.lane_columns +
                        static_cast<std::int64_t>(run) * tiles * kApart + quarter * kTileBytes;
      program_.kernels().unpack(program_.bands()[band], first, start / kTile, tiles, kApart, at,
                       scratch_[static_cast<std::size_t>(thread)]);
      if (!offload_->checksum().has(block))
        offload_->checksum().add_weights(first_strip, at, tiles, kApart, start, thread);
    }
  });
}

// What the current linear's sums of some vectors should be, by its input and weights. Row tiles are multiples of them.
void Step::expect_sums(int vector) const {
  const int linear = offloaded_[static_cast<std::size_t>(current_)];
  const rl_npu_shape &shape = offload_->plan().shape_of(linear);
  static_assert(kCheckVectors % 2 == 0);
  const QuantOut at = npu_row(linear, 0, vector / shape.planes);
  npu::Checksum &checksum = offload_->checksum();
  std::uint64_t expected[kCheckVectors];
  program_.kernels().expect_checks(
      ExpectTask{at.q, at.atom_stride, shape.inputs, checksum.low_weights(linear), checksum.high_weights(linear)}, expected);
  checksum.expect(vector, expected);
}

// Where a row's codes are in the NPU's input for a linear; its scale is not there.
QuantOut Step::npu_row(int linear, int space, int row) const {
  const npu::Plan &plan = offload_->plan();
  const rl_npu_shape &shape = plan.shape_of(linear);
  const rl_npu_size &size = plan.size_of(linear, batch_.rows);
  const int vector = row * shape.planes;
  const std::int32_t *tile = std::upper_bound(size.tile_starts, size.tile_starts + size.n_tiles, vector) - 1;
  const int vectors = tile[1] - tile[0];
  auto *q = reinterpret_cast<std::int8_t *>(plan.input(space)) + static_cast<std::int64_t>(tile[0]) * shape.inputs +
            (vector - tile[0]) * kAtom;
  return QuantOut{q, nullptr, shape.inputs, shape.planes, vectors * kAtom};
}

// Every address space has an input of its own.
void Step::spread_row(int row) const {
  const QuantOut from = npu_row(fed_, 0, row);
  const auto bytes = static_cast<std::size_t>(from.planes) * kAtom;
  for (int space = 1; space < offload_->plan().inputs(); ++space) {
    std::int8_t *to = npu_row(fed_, space, row).q, *q = from.q;
    for (int k = 0; k < from.stride; k += kAtom, q += from.atom_stride, to += from.atom_stride) std::memcpy(to, q, bytes);
  }
}

}  // namespace rl
