// What one processor's kernels offer: a table of functions, chosen once when a program is created.
//
// Every entry works on a range of independent units (rows, strips, heads); no result depends on how a step's units
// are cut into ranges. The same sources (lanes.hpp, rows.hpp, linear.hpp, attention.hpp) are compiled for each
// processor, so the floats agree bit for bit; only the integer primitives differ.
#pragma once

#include <cstdint>

#include "rockledge.h"

namespace rl {

constexpr int kStrip = 8;          // rows of a strip
constexpr int kTile = 32;          // inputs of a tile
constexpr int kAtom = 16;          // neighbouring inputs of one vector in the NPU's layout
constexpr int kSplit = 512;        // positions of an attention split
constexpr int kMostHeadDim = 512;  // dimensions of the largest head
constexpr int kTableBytes = 8192;  // a band's tables as the loops use them: at most 256 pairs of 32 bytes
constexpr int kGroupHeads = 4;     // query heads that share one walk over a KV head
constexpr int kTileRows = 8;       // neighbouring rows of a sequence that share it
constexpr int kBlockStrips = 4;    // strips that a many-row linear unpacks at a time, where they fit
constexpr int kBlockBytes = 256 * 1024;

// One thread's own memory, 64-byte aligned, sized when the program is created.
struct Scratch {
  const std::int8_t *tables_of;  // whose tables `tables` holds
  std::int8_t *tables;           // kTableBytes
  void *weights;                 // the strips of a block, unpacked in the order that the kernel needs
  std::int32_t *excess;          // what a biased kernel's sums of each row (and plane) of a step are too large by
  float *row;                    // widest row a row operation needs
  float *attention;              // kAttentionFloats
  float *partial;                // two partials of one KV head for each row of a tile
  void *drawing;                 // what drawing from a row of logits takes (draw.hpp)
};

// What becomes of a head before it is rounded.
struct HeadTurn {
  const float *gain;     // of a norm [head_dim]; null: none
  float eps;
  const float *inverse;  // 1 / root mean square, where that norm spans more than this head
  const float *angle;    // cosines, then sines [turned / 2] of the pairs; null: nothing turns
  std::int32_t turned;
};

struct LinearTask {
  const rl_band *band;
  const std::int8_t *x;     // [rows * planes][x_stride]
  const float *sx;          // [rows]
  const float *residual;    // [rows][residual_stride] or null; already at the band's column
  float *y;                 // [rows][y_stride], already at the band's column
  std::int64_t y_stride, residual_stride;
  std::int32_t x_stride;
  std::int32_t rows, planes;
};

struct QuantOut {
  std::int8_t *q;   // [planes][stride]; or in the NPU's layout [stride / kAtom], atom_stride bytes apart, [planes][kAtom]
  float *scale;
  std::int32_t stride, planes;
  std::int32_t atom_stride;  // 0: the first of these
};

// What a core of the NPU has computed: in each of `parts` planes, of whose sums the sum counts, row tiles one after
// the other, that of m vectors int32 [columns / 4][m][4]. The planes of a row are neighbouring vectors.
struct LaneSums {
  const std::int32_t *sums;
  std::int64_t part_stride;         // int32s of a plane
  const std::int32_t *tile_starts;  // [tiles + 1], vectors
  std::int32_t tiles, parts, columns;
  const std::int32_t *factors;      // of each column from the first strip on
  std::uint64_t *checks;            // [vectors][kCheckLanes]: the sums times them are added to any of a vector's lanes
};
constexpr int kCheckLanes = 4;

// What the check sums of kCheckVectors vectors should be, by their codes and by 64-bit weights low + 2^32 high.
struct ExpectTask {
  const std::int8_t *atoms;  // as in QuantOut
  std::int64_t atom_stride;
  std::int32_t inputs;
  const std::int32_t *low, *high;  // [inputs]
};
constexpr int kCheckVectors = 4;

// KV of one layer: page p starts at base + p * page_bytes; inside a page K, V, then their scales.
// K is [kv head][position / 8][input / 4][8 positions][4 inputs], so that a vector is multiplied by four inputs of a query
// repeated for every position, and each lane is the sum of one. V is [kv head][column / 16][position / 4][16 columns]
// [4 positions]: likewise, it is multiplied by the weights of four positions, and each lane is the sum of a column.
struct KvLayer {
  std::uint8_t *base;
  std::int64_t page_bytes;
  std::int32_t page_tokens, kv_heads, head_dim, head_stride;  // head_stride: head_dim rounded up to 32
};
constexpr int kKeys = 8;  // positions of a block of keys
constexpr int kColumns = 16;  // columns of a block of values
constexpr int kQuad = 4;  // inputs, or positions, that one lane of an integer dot product adds up

struct AttentionTask {
  KvLayer kv;
  const std::int8_t *q;     // [heads][head_stride]
  const float *sq;          // [heads]
  const std::int32_t *pages;  // entries of pages wholly before `first` mean nothing
  std::int32_t first, position, heads, head_dim;  // the query sees the positions first .. position
  float scale, softcap;     // of the scores; softcap 0: none
  // The score bias (rockledge.h), whose first is null when there is none.
  const float *terms;   // [heads][head_dim], of which [2][turned / 2] count
  const float *bias;    // [kv heads][head_dim], likewise
  const float *angles;  // [turned / 2][2][kSplit]: cosines and sines of a split's positions, counted from its first
  const float *starts;  // [splits][2][turned / 2]: of their first positions
  std::int32_t turned;
};

// What one core of the NPU computes of attention, and where it finds its weights; layouts and tiles are those of npu/npu.h.
struct NpuVectors {
  const std::int32_t *scores;  // tiles of score_tile vectors: [kSplit / 4][score_tile][4]
  std::int8_t *weights;        // tiles of sum_tile vectors, two for each query: [kSplit / kAtom][sum_tile][kAtom]
  const std::int32_t *sums;    // of the same vectors: [head_stride / 4][sum_tile][4]
  std::int32_t score_tile, sum_tile;
  const std::int32_t *factors;  // of columns, for check sums
};

// Sixteen tables as rounding looks them up. A row is first seen in units of a scale in which its root mean square is
// kUnitsPerRms, times the shares that are tried.
constexpr int kGroup = 16;           // neighbouring inputs that share a table
constexpr int kTables = 16;
constexpr int kErrorCells = 1024;    // quarters of a unit, from -128 up
constexpr float kCellsAUnit = 4.0f;
constexpr int kNearestCells = 512;   // halves of a unit, from -128 up
constexpr float kUnitsPerRms = 32.0f;
struct RoundTables {
  const float *errors;          // [kErrorCells][kTables]: what a weight in the middle of a cell loses
  const std::uint8_t *nearest;  // [kTables][kNearestCells]: the code of the nearest entry
  const std::int8_t *entries;   // [kTables][16]
  const float *share;           // [shares]
  std::int32_t shares;
};

struct Kernels {
  int id;
  // Strips first .. last-1 of one band, for all rows of x.
  void (*linear)(const LinearTask &, int first, int last, Scratch &);
  // The epilogue of these strips for sums of the NPU; the first strip's first column is number `column` of the lane.
  void (*finish_lane)(const LinearTask &, const LaneSums &, int column, int first, int last);
  // Codes times weights, modulo 2^64: expected[kCheckVectors].
  void (*expect_checks)(const ExpectTask &, std::uint64_t *expected);
  // Weights of `tiles` tiles of a strip from first_tile on, int8 [8][32] each, `stride` bytes apart. 32-byte aligned.
  void (*unpack)(const rl_band &, int strip, int first_tile, int tiles, std::int64_t stride, std::int8_t *out, Scratch &);
  // fp32 rows of the embedding: weight row `row` of the band.
  void (*embed)(const rl_band &, int row, float *out, Scratch &);
  // x * scale, and that softly capped; softcap 0: not.
  void (*soft_cap)(const float *x, int width, float scale, float softcap, float *y);
  // 1 / root of (mean square + eps).
  float (*inverse_root)(const float *x, int width, float eps);
  void (*norm)(const float *x, int width, const float *gain, float eps, float *y);
  void (*norm_add)(const float *x, const float *residual, int width, const float *gain, float eps, float *y);
  void (*quant)(const float *x, int width, int block, const QuantOut &, Scratch &);
  void (*norm_quant)(const float *x, int width, const float *gain, float eps, int block, const QuantOut &, Scratch &);
  void (*gated_quant)(const float *gate, const float *up, int width, int activation, int block, const QuantOut &,
                      Scratch &);
  void (*rotate)(const float *x, int block, int odd, bool inverse, const float *signs, const float *mix,
                 const float *gain, float *y, Scratch &);
  // One head to int8. What was rotated stays in scratch.row.
  void (*head_quant)(const float *x, int head_dim, int stride, const HeadTurn &, std::int8_t *q, float *scale, Scratch &);
  // One split of one KV head's query heads, for a tile: `count` rows of one sequence that follow each other, whose first
  // positions share a page, and whose own positions do. Partial maxima, sums and values [heads][head_stride + 8] of each
  // row, `apart` floats from those of the row before.
  void (*attend_split)(const AttentionTask *rows, int count, int kv_head, int split, float *partial, std::int64_t apart,
                       Scratch &);
  // Folds the partial of the next split into that of the splits before it.
  void (*attend_fold)(const AttentionTask &, float *before, const float *next);
  // The finished values y [heads of the group][head_dim] of a partial that has seen every split.
  void (*attend_finish)(const AttentionTask &, const float *partial, float *y);
  // The same when the NPU multiplies. Its scores of a row and a split that the row sees, of which `vector` is the first
  // head's, become weights, and maxima, sums and factors in the row's partial. Then its values become those of the partial.
  // Check sums of what was read: of each head, and of both planes of each.
  void (*npu_weights)(const AttentionTask &row, int kv_head, int split, const NpuVectors &, int vector, float *partial,
                      std::uint64_t *checks, Scratch &);
  void (*npu_values)(const AttentionTask &row, const NpuVectors &, int vector, float *partial, std::uint64_t *checks);
  // Reads `bytes`, a multiple of 256, and gives something that depends on all of them.
  std::int32_t (*read_all)(const std::uint8_t *, std::int64_t bytes);
  // Normalised Hadamard transform of one block, in place; a power of two.
  void (*hadamard)(float *x, int block);
  // A row in the code of tables: codes [width], index [groups]; `tried` has room for two indices. Gives the row's scale, 0
  // if the row is too large for one.
  float (*round_row)(const float *w, int width, const RoundTables &, std::uint8_t *tried, std::uint8_t *codes,
                     std::uint8_t *index);
};

const Kernels *kernels(int id);        // null when this build or processor lacks it
int best_kernel();                     // of this processor; the first call may measure for some milliseconds
const char *kernel_name(int id);

// Static, so that no copy compiled for one instruction set can stand in for another's.
static inline std::int64_t kv_page_bytes(int page_tokens, int kv_heads, int head_stride) {
  return std::int64_t{2} * kv_heads * page_tokens * (head_stride + 4);
}

static inline int tiles_of(int cols) { return (cols + kTile - 1) / kTile; }

// Strips that one block of a many-row linear unpacks, and the bytes they take at most.
static inline int block_strips(int cols) {
  const int fit = kBlockBytes / (2 * kStrip * kTile * tiles_of(cols));
  return fit < 1 ? 1 : fit < kBlockStrips ? fit : kBlockStrips;
}
static inline std::int64_t block_bytes(int cols) {
  return std::int64_t{2} * kStrip * kTile * tiles_of(cols) * block_strips(cols);
}

// Floats of one KV head's partial result: for each query head the values, then maximum and sum of exponentials, and while
// the NPU multiplies, what its sums will be multiplied by.
constexpr int kPartialExtra = 8;
constexpr int kPartialFactor = 2;
static inline std::int64_t partial_floats(int group, int head_stride) {
  return std::int64_t{group} * (head_stride + kPartialExtra);
}

// Floats of Scratch::attention: scores of the rows and heads that share a walk. Those of one head are a line longer than
// a split, because at a distance of a power of two they would take each other's place in the first cache.
constexpr int kScoreStride = kSplit + 16;
constexpr std::int64_t kAttentionFloats = std::int64_t{kTileRows} * kGroupHeads * kScoreStride;

// Weights of a split's values, two planes of 7 bits, in the place of the scores that they were made of: [position / 8]
// [2 planes][8 positions] of each query, so many bytes apart.
constexpr std::int64_t kCodeStride = 4 * kScoreStride;
constexpr float kMostCode = 16383.0f;  // of the largest weight
constexpr int kPlaneBits = 7;

// Values of a page's positions that some of a tile's rows see: `blocks` blocks of eight.
struct ValueRun {
  const std::int8_t *values;  // of the first block of columns
  int blocks;
};

}  // namespace rl
