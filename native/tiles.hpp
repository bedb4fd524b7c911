// Where things lie in a band's streams: strips of 8 rows, tiles of 8 rows x 32 inputs (docs/formats.md).
#pragma once

#include "kernels.hpp"
#include "lanes.hpp"

namespace rl::RL_ISA {

RL_INLINE int tile_bytes(int bits) { return kStrip * kTile * bits / 8; }

RL_INLINE const std::uint8_t *strip_codes(const rl_band &band, int strip) {
  return band.codes + static_cast<std::int64_t>(strip) * tiles_of(band.cols) * tile_bytes(band.bits);
}
RL_INLINE const std::uint8_t *strip_index(const rl_band &band, int strip) {
  return band.bits == 8 ? nullptr : band.index + static_cast<std::int64_t>(strip) * tiles_of(band.cols) * kStrip;
}

// One weight: row r, input k of a tile.
RL_INLINE std::int8_t decode(int bits, const std::uint8_t *codes, const std::uint8_t *index,
                             const std::int8_t *tables, int r, int k) {
  if (bits == 8) return static_cast<std::int8_t>(codes[r * kTile + k]);
  const int table = k < kTile / 2 ? index[r] & 15 : index[r] >> 4;
  int code;
  if (bits == 4) {
    code = (codes[r / 2 * kTile + k] >> (r % 2 * 4)) & 15;
  } else {
    code = (codes[r / 4 * kTile + k] >> (r % 4 * 2)) & 3;
    if (bits == 3) code |= ((codes[2 * kTile + k] >> r) & 1) << 2;
  }
  return tables[table * 16 + code];
}

}  // namespace rl::RL_ISA
