#include "plan.hpp"

#include <algorithm>

#include "../error.hpp"

namespace rl::npu {
namespace {

constexpr int kRun = 32;               // columns and inputs that the layouts keep together
constexpr int kMostInputs = 131071;    // beyond, sums of int8 products can leave int32
constexpr int kMostColumns = 1 << 24, kMostRows = 1 << 16, kMostTiles = 1 << 14;
constexpr int kMostBlocks = 1 << 20, kMostSizes = 64, kMostShapes = 4096;
// What one thread hands over in one call: few calls, and enough of them for all threads.
constexpr std::int64_t kSyncPiece = std::int64_t{4} << 20;

// Rising multiples of `step` from 0 to `end`.
bool rises(const std::int32_t *starts, int count, int step, int end) {
  if (starts[0] != 0 || starts[count] != end) return false;
  for (int i = 0; i < count; ++i)
    if (starts[i + 1] <= starts[i] || starts[i + 1] % step != 0) return false;
  return true;
}

std::int64_t vectors(const rl_npu_shape &shape, const rl_npu_size &size) {
  return static_cast<std::int64_t>(size.rows) * shape.planes;
}
// Those of the row tiles in which the vectors of so many rows lie.
std::int64_t used_vectors(const rl_npu_shape &shape, const rl_npu_size &size, int rows) {
  return *std::lower_bound(size.tile_starts, size.tile_starts + size.n_tiles, rows * shape.planes);
}
std::int64_t input_bytes(const rl_npu_shape &shape, const rl_npu_size &size) {
  return vectors(shape, size) * shape.inputs;
}
std::int64_t weight_bytes(const rl_npu_shape &shape) {
  return static_cast<std::int64_t>(shape.lane_columns) * shape.inputs;
}
std::int64_t scratch_bytes(const rl_npu_shape &shape, const rl_npu_size &size) {
  return vectors(shape, size) * shape.lane_columns * std::int64_t{sizeof(std::int32_t)};
}
std::int64_t output_bytes(const rl_npu_shape &shape, const rl_npu_size &size) {
  return size.sums * scratch_bytes(shape, size);
}

}  // namespace

Owned<Plan> Plan::create(Shared<Npu> npu, const rl_npu_plan &plan, const Array<LinearFacts> &facts) {
  Owned<Plan> made = make_owned<Plan>();
  if (made != nullptr) made->held_ = make_owned<Held>(npu);
  if (made == nullptr || made->held_ == nullptr) {
    fail("not enough memory for a plan of the NPU; free some memory");
    return nullptr;
  }
  made->npu_ = npu;
  if (made->check_counts(plan) < 0) return nullptr;
  if (!made->copy(plan)) {
    fail("a plan's lists are missing or too long, or there is not enough memory for a copy of them");
    return nullptr;
  }
  if (!npu->take()) {
    fail("another program uses this NPU; take it away from that program first");
    return nullptr;
  }
  made->taken_ = true;
  for (int i = 0; i < plan.n_shapes; ++i)
    if (made->check_shape(i) < 0) return nullptr;
  if (made->check_linears(facts) < 0 || made->check_places() < 0 || made->check_programs() < 0 ||
      made->held_->check_overlaps() < 0)
    return nullptr;
  return made;
}

Plan::~Plan() {
  held_.reset();
  if (taken_) npu_->give_back();
}

int Plan::check_counts(const rl_npu_plan &plan) const {
  rl_npu_description device{};
  npu_->describe(device);
  if (device.failed != 0) return fail("the NPU was given up; open it again");
  if (plan.lanes < 1 || plan.lanes > device.cores || plan.lanes > RL_NPU_CORES)
    return fail("a plan has %d lanes, expected 1 to %d, the cores of the NPU", plan.lanes, device.cores);
  if (plan.from_rows < 1 || plan.timeout_ms < 1 || plan.timeout_ms > 60000)
    return fail("a plan is for steps from %d rows and blocks of %d ms, expected at least 1, and 1 to 60000", plan.from_rows,
                plan.timeout_ms);
  if (plan.n_shapes < 1 || plan.n_shapes > kMostShapes || plan.n_linears < 1 || plan.n_linears > kMostBlocks ||
      plan.n_blocks < 1 || plan.n_blocks > kMostBlocks || plan.n_slots < 1 || plan.n_slots > plan.n_blocks)
    return fail("a plan has %d shapes, %d linears, %d blocks and %d slots, which is out of range", plan.n_shapes,
                plan.n_linears, plan.n_blocks, plan.n_slots);
  return 0;
}

// Copies all lists; where one is missing or its length senseless, false.
bool Plan::copy(const rl_npu_plan &plan) {
  if (plan.shapes == nullptr || plan.linears == nullptr || plan.block_slot == nullptr || plan.slots == nullptr)
    return false;
  plan_ = plan;
  std::size_t sizes = 0, starts = 0;
  for (int i = 0; i < plan.n_shapes; ++i) {
    const rl_npu_shape &shape = plan.shapes[i];
    if (shape.n_sizes < 1 || shape.n_sizes > kMostSizes || shape.sizes == nullptr || shape.n_parts < 1 ||
        shape.n_parts > kMostTiles || shape.part_starts == nullptr)
      return false;
    sizes += static_cast<std::size_t>(shape.n_sizes);
    starts += static_cast<std::size_t>(shape.n_parts) + 1;
    for (int s = 0; s < shape.n_sizes; ++s) {
      if (shape.sizes[s].n_tiles < 1 || shape.sizes[s].n_tiles > kMostTiles || shape.sizes[s].tile_starts == nullptr)
        return false;
      starts += static_cast<std::size_t>(shape.sizes[s].n_tiles) + 1;
    }
  }
  const auto count = [](int n) { return static_cast<std::size_t>(n); };
  if (!shapes_.allocate(count(plan.n_shapes)) || !sizes_.allocate(sizes) || !starts_.allocate(starts) ||
      !linears_.allocate(count(plan.n_linears)) || !linear_strips_.allocate(count(plan.n_linears)) ||
      !block_slot_.allocate(count(plan.n_blocks)) || !block_linear_.allocate(count(plan.n_blocks)) ||
      !slots_.allocate(count(plan.n_slots) * count(plan.lanes)))
    return false;
  std::copy_n(plan.shapes, plan.n_shapes, shapes_.data());
  std::copy_n(plan.linears, plan.n_linears, linears_.data());
  std::copy_n(plan.block_slot, plan.n_blocks, block_slot_.data());
  std::copy_n(plan.slots, plan.n_slots * plan.lanes, slots_.data());
  rl_npu_size *size = sizes_.data();
  std::int32_t *start = starts_.data();
  const auto keep = [&](const std::int32_t *&list, int n) {
    list = std::copy_n(list, n + 1, start) - (n + 1);
    start += n + 1;
  };
  for (rl_npu_shape &shape : shapes_) {
    keep(shape.part_starts, shape.n_parts);
    shape.sizes = std::copy_n(shape.sizes, shape.n_sizes, size) - shape.n_sizes;
    for (int s = 0; s < shape.n_sizes; ++s, ++size) keep(size->tile_starts, size->n_tiles);
  }
  plan_.shapes = nullptr, plan_.linears = nullptr, plan_.block_slot = nullptr, plan_.slots = nullptr;
  return true;
}

int Plan::check_shape(int number) const {
  const rl_npu_shape &s = shapes_[static_cast<std::size_t>(number)];
  if (s.inputs < kRun || s.inputs > kMostInputs || s.inputs % kRun != 0 || s.planes < 1 || s.planes > 2 ||
      s.lane_columns < kRun || s.lane_columns > kMostColumns || s.lane_columns % kRun != 0)
    return fail("shape %d has %d inputs, %d planes and %d columns per lane, expected multiples of %d, and 1 or 2 planes",
                number, s.inputs, s.planes, s.lane_columns, kRun);
  if (!rises(s.part_starts, s.n_parts, kRun, s.inputs))
    return fail("the input parts of shape %d do not rise from 0 to %d by multiples of %d", number, s.inputs, kRun);
  for (int i = 0; i < s.n_sizes; ++i) {
    const rl_npu_size &size = s.sizes[i];
    if (size.rows < 1 || size.rows > kMostRows || (i > 0 && size.rows <= s.sizes[i - 1].rows) || size.sums < 1 ||
        size.sums > s.n_parts)
      return fail("shape %d has %d planes of sums for %d rows; rows must rise, and %d are the most", number, size.sums,
                  size.rows, s.n_parts);
    if (!rises(size.tile_starts, size.n_tiles, 4, size.rows * s.planes))
      return fail("the row tiles of shape %d do not rise from 0 to %d by multiples of 4", number, size.rows * s.planes);
  }
  return 0;
}

int Plan::check_linears(const Array<LinearFacts> &facts) {
  int next = 0;
  for (int i = 0; i < plan_.n_linears; ++i) {
    const rl_npu_linear &linear = this->linear(i);
    const LinearFacts &fact = facts[static_cast<std::size_t>(i)];
    if (linear.shape < 0 || linear.shape >= plan_.n_shapes)
      return fail("linear %d has shape %d of %d", i, linear.shape, plan_.n_shapes);
    const rl_npu_shape &shape = shape_of(i);
    if (shape.inputs != fact.inputs || shape.planes != fact.planes)
      return fail("linear %d has %d inputs in %d planes, its shape %d in %d", i, fact.inputs, fact.planes, shape.inputs,
                  shape.planes);
    const int of_block = plan_.lanes * strips_in_lane(i), blocks = (fact.strips + of_block - 1) / of_block;
    if (linear.blocks != blocks || linear.first_block != next || blocks > plan_.n_blocks - next)
      return fail("linear %d has %d blocks from number %d on; its columns take %d from %d on, of %d", i, linear.blocks,
                  linear.first_block, blocks, next, plan_.n_blocks);
    std::fill_n(block_linear_.data() + next, blocks, i);
    linear_strips_[static_cast<std::size_t>(i)] = fact.strips;
    next += blocks;
    const int rows = shape.sizes[shape.n_sizes - 1].rows;
    to_rows_ = i == 0 ? rows : std::min(to_rows_, rows);
  }
  if (next != plan_.n_blocks) return fail("a plan has %d blocks, expected the %d of its linears", plan_.n_blocks, next);
  if (plan_.from_rows > to_rows_)
    return fail("a plan is for steps from %d rows on, expected at most the %d that its programs take", plan_.from_rows, to_rows_);
  for (const std::int32_t slot : block_slot_)
    if (slot < 0 || slot >= plan_.n_slots) return fail("a block lies in slot %d of %d", slot, plan_.n_slots);
  return 0;
}

int Plan::check_places() {
  std::int64_t input = 0, output = 0, scratch = 0;
  for (const rl_npu_shape &shape : shapes_)
    for (int s = 0; s < shape.n_sizes; ++s) {
      input = std::max(input, input_bytes(shape, shape.sizes[s]));
      output = std::max(output, output_bytes(shape, shape.sizes[s]));
      scratch = std::max(scratch, scratch_bytes(shape, shape.sizes[s]));
    }
  Array<std::int64_t> slot_bytes;
  if (!slot_bytes.allocate(static_cast<std::size_t>(plan_.n_slots)))
    return fail("not enough memory for a plan of the NPU; free some memory");
  for (int b = 0; b < plan_.n_blocks; ++b) {
    std::int64_t &bytes = slot_bytes[static_cast<std::size_t>(slot_of(b))];
    bytes = std::max(bytes, weight_bytes(shape_of(linear_of(b))));
  }
  for (int c = 0; c < plan_.lanes; ++c) {
    const rl_npu_place &first = plan_.input[0], &own = plan_.input[c];
    if (c < inputs()) {
      if (held_->place("the input", own, c, input) < 0) return -1;
    } else if (own.buffer != first.buffer || own.offset != first.offset) {
      return fail("lane %d has an input of its own; lanes of one address space share it", c);
    }
    for (const auto &output_of : plan_.output)
      if (held_->place("the output", output_of[c], c, output) < 0) return -1;
    if (plan_.scratch[c].buffer != -1 && held_->place("the scratch", plan_.scratch[c], c, scratch) < 0) return -1;
    for (int s = 0; s < plan_.n_slots; ++s)
      if (held_->place("a slot", place_of(s, c), c, slot_bytes[static_cast<std::size_t>(s)]) < 0) return -1;
  }
  return 0;
}

// Binds every program once: an address that does not fit its range is found here, not in a step.
int Plan::check_programs() {
  for (const rl_npu_size &size : sizes_)
    for (const auto &instance : size.programs)
      for (int c = 0; c < plan_.lanes; ++c)
        if (held_->program(instance[c]) < 0) return -1;
  for (int i = 0; i < plan_.n_linears; ++i) {
    const rl_npu_shape &shape = shape_of(i);
    for (int s = 0; s < shape.n_sizes; ++s)
      for (int parity = 0; parity < 2; ++parity)
        for (int c = 0; c < plan_.lanes; ++c)
          if (bind_lane(linear(i).first_block, shape.sizes[s], parity, c) < 0) return -1;
  }
  return 0;
}

const rl_npu_size &Plan::size_of(int linear, int rows) const {
  const rl_npu_size *size = shape_of(linear).sizes;
  while (size->rows < rows) ++size;
  return *size;
}

int Plan::first_strip(int block) const {
  const int number = linear_of(block);
  return (block - linear(number).first_block) * plan_.lanes * strips_in_lane(number);
}

int Plan::strips(int block) const {
  const int number = linear_of(block);
  return std::min(plan_.lanes * strips_in_lane(number),
                  linear_strips_[static_cast<std::size_t>(number)] - first_strip(block));
}

int Plan::active_lanes(int block) const {
  const int of_lane = strips_in_lane(linear_of(block));
  return (strips(block) + of_lane - 1) / of_lane;
}

int Plan::sync_input(int linear, int rows) const {
  const rl_npu_shape &shape = shape_of(linear);
  const std::int64_t bytes = used_vectors(shape, size_of(linear, rows), rows) * shape.inputs;
  for (int c = 0; c < inputs(); ++c)
    if (npu_->sync(plan_.input[c].buffer, plan_.input[c].offset, bytes, RL_NPU_TO_DEVICE) < 0) return -1;
  return 0;
}

int Plan::sync_piece(const rl_npu_place &place, std::int64_t first, std::int64_t bytes, int piece, int direction) const {
  const std::int64_t begin = piece * kSyncPiece, end = npu_->syncs_ranges() ? std::min(bytes, begin + kSyncPiece) : bytes;
  return npu_->sync(place.buffer, place.offset + first + begin, end - begin, direction);
}

int Plan::pieces(std::int64_t bytes) const {
  return npu_->syncs_ranges() ? static_cast<int>((bytes + kSyncPiece - 1) / kSyncPiece) : 1;
}

int Plan::weight_pieces(int block) const {
  return active_lanes(block) * pieces(weight_bytes(shape_of(linear_of(block))));
}

int Plan::sync_weights(int block, int piece) const {
  const std::int64_t bytes = weight_bytes(shape_of(linear_of(block)));
  const int of_lane = pieces(bytes);
  return sync_piece(place_of(slot_of(block), piece / of_lane), 0, bytes, piece % of_lane, RL_NPU_TO_DEVICE);
}

// A plane of sums, without the row tiles that are padding alone.
std::int64_t Plan::used_sums(int block, int rows) const {
  const rl_npu_shape &shape = shape_of(linear_of(block));
  return used_vectors(shape, size_of(linear_of(block), rows), rows) * shape.lane_columns * std::int64_t{sizeof(std::int32_t)};
}

int Plan::sum_pieces(int block, int rows) const {
  // Where the marks brought whole buffers, there is nothing left to hand over.
  if (!npu_->syncs_ranges()) return 0;
  return active_lanes(block) * size_of(linear_of(block), rows).sums * pieces(used_sums(block, rows));
}

int Plan::sync_sums(int block, int rows, int parity, int piece) const {
  const rl_npu_size &size = size_of(linear_of(block), rows);
  const std::int64_t bytes = used_sums(block, rows);
  const int of_plane = pieces(bytes), plane = piece / of_plane;
  const std::int64_t first = plane % size.sums * scratch_bytes(shape_of(linear_of(block)), size);
  return sync_piece(plan_.output[parity][plane / size.sums], first, bytes, piece % of_plane, RL_NPU_FROM_DEVICE);
}

int Plan::bind(int block, const rl_npu_size &size, int parity) const {
  for (int c = 0; c < active_lanes(block); ++c) {
    if (bind_lane(block, size, parity, c) < 0) return -1;
    // The block that may be running writes the other output, but the same scratch: that is marked when this one starts.
    if (plan_.scratch[c].buffer == -1 && npu_->mark(size.programs[parity][c]) < 0) return -1;
  }
  return 0;
}

int Plan::bind_lane(int block, const rl_npu_size &size, int parity, int lane) const {
  const rl_npu_shape &shape = shape_of(linear_of(block));
  const auto binding = [](const rl_npu_place &place, int written, std::int64_t bytes) {
    return rl_npu_binding{place.buffer, written, 0, place.offset, bytes};
  };
  const rl_npu_binding bindings[] = {
      binding(plan_.input[lane], 0, input_bytes(shape, size)),
      binding(place_of(slot_of(block), lane), 0, weight_bytes(shape)),
      // The CPU reads the output alone, and of that what a step uses: sync_sums.
      binding(plan_.output[parity][lane], 2, output_bytes(shape, size)),
      binding(plan_.scratch[lane], 2, scratch_bytes(shape, size)),
  };
  static_assert(RL_NPU_INPUT == 0 && RL_NPU_WEIGHT == 1 && RL_NPU_OUTPUT == 2 && RL_NPU_SCRATCH == 3);
  return npu_->bind(size.programs[parity][lane], bindings, sizeof bindings / sizeof *bindings);
}

}  // namespace rl::npu
