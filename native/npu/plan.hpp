// What rl_npu_plan says, copied and checked: which programs, places and blocks a program's linears have on a device.
#pragma once

#include "held.hpp"

namespace rl::npu {

// What a plan is checked against: the linear that an operation of the program is.
struct LinearFacts {
  std::int32_t inputs;  // rounded up to 32
  std::int32_t planes;
  std::int32_t strips;  // of 8 columns, all bands together
};

class Plan {
 public:
  // `facts` of each of the plan's linears, in their order. Null and a sentence when something does not fit.
  static Owned<Plan> create(Shared<Npu> npu, const rl_npu_plan &plan, const Array<LinearFacts> &facts);
  Plan() = default;
  Plan(const Plan &) = delete;
  Plan &operator=(const Plan &) = delete;
  ~Plan();

  Npu &npu() const { return *npu_; }
  int lanes() const { return plan_.lanes; }
  int from_rows() const { return plan_.from_rows; }
  int to_rows() const { return to_rows_; }
  int timeout_ms() const { return plan_.timeout_ms; }
  int linears() const { return plan_.n_linears; }
  int blocks() const { return plan_.n_blocks; }
  int slots() const { return plan_.n_slots; }

  const Shared<Npu> &shared_npu() const { return npu_; }
  const Held &held() const { return *held_; }

  const rl_npu_linear &linear(int number) const { return linears_[static_cast<std::size_t>(number)]; }
  const rl_npu_shape &shape_of(int linear) const { return shapes_[static_cast<std::size_t>(this->linear(linear).shape)]; }
  // The size of a linear's shape for a step of so many rows, which are at most to_rows().
  const rl_npu_size &size_of(int linear, int rows) const;
  int linear_of(int block) const { return block_linear_[static_cast<std::size_t>(block)]; }
  int slot_of(int block) const { return block_slot_[static_cast<std::size_t>(block)]; }

  // Strips of 8 columns: a block's first one, and how many of it the linear has.
  int strips_in_lane(int linear) const { return shape_of(linear).lane_columns / kColumns; }
  int first_strip(int block) const;
  int strips(int block) const;
  // Lanes of a block that have any of them.
  int active_lanes(int block) const;

  std::int64_t unpacked_bytes(int block) const {
    return std::int64_t{kColumns} * strips(block) * shape_of(linear_of(block)).inputs;
  }

  // Where the CPU finds things: what lies there stays for as long as the plan does.
  std::uint8_t *input(int lane) const { return at(plan_.input[lane]); }
  std::uint8_t *output(int parity, int lane) const { return at(plan_.output[parity][lane]); }
  std::uint8_t *slot(int slot, int lane) const { return at(place_of(slot, lane)); }
  // Address spaces, each with an input of its own: lane c has input c, or they all have input 0.
  int inputs() const { return npu_->spaces() == 1 ? 1 : plan_.lanes; }

  // Handing over what a step of so many rows uses: to the device, what producers wrote and a block's weights; from it,
  // a block's sums, as far as its end has not. Weights and sums go by pieces, which several threads may do at once.
  // -1 and a sentence on failure.
  int sync_input(int linear, int rows) const;
  int weight_pieces(int block) const;
  int sync_weights(int block, int piece) const;
  int sum_pieces(int block, int rows) const;
  int sync_sums(int block, int rows, int parity, int piece) const;
  // Writes the addresses of a block into the programs of its lanes, and marks what they will write.
  int bind(int block, const rl_npu_size &size, int parity) const;

  static constexpr int kColumns = 8;  // of a strip

 private:
  const rl_npu_place &place_of(int slot, int lane) const {
    return slots_[static_cast<std::size_t>(slot * plan_.lanes + lane)];
  }
  std::uint8_t *at(const rl_npu_place &place) const { return npu_->memory(place.buffer)->data + place.offset; }
  bool copy(const rl_npu_plan &plan);
  int check_counts(const rl_npu_plan &plan) const;
  int check_shape(int number) const;
  int check_linears(const Array<LinearFacts> &facts);
  int check_places();
  int check_programs();
  int bind_lane(int block, const rl_npu_size &size, int parity, int lane) const;
  int pieces(std::int64_t bytes) const;
  int sync_piece(const rl_npu_place &place, std::int64_t first, std::int64_t bytes, int piece, int direction) const;
  std::int64_t used_sums(int block, int rows) const;

  Shared<Npu> npu_;
  bool taken_ = false;
  rl_npu_plan plan_{};
  int to_rows_ = 0;
  Array<rl_npu_shape> shapes_;
  Array<rl_npu_size> sizes_;
  Array<std::int32_t> starts_;  // of tiles and parts, of all shapes
  Array<rl_npu_linear> linears_;
  Array<std::int32_t> block_slot_, block_linear_, linear_strips_;
  Array<rl_npu_place> slots_;
  Owned<Held> held_;            // all that the plan uses
};

}  // namespace rl::npu
