// ldmatrix and mma, from "Warp Level Matrix Instructions" of the PTX ISA: which lane holds which element is written down
// here from its figures, not taken from csrc/core/cuda/mma.cuh.
#include "emulator/machine.h"
#include "ptx/launch.h"
#include "ptx/runtime.h"

namespace fastcv::ptx {

namespace {

constexpr unsigned kLanes = emulator::kWarpSize;

// What the lanes of a warp bring to an instruction. There are two for each warp, in turn: when a lane writes to one, all
// have read the one before the last.
struct Brought {
  uint32_t row[kLanes];
  float a[kLanes][4][2], b[kLanes][2][2];  // the elements of their words
  unsigned line[kLanes];
};
Brought brought[emulator::kMaxThreads / kLanes][2];
uint8_t turn[emulator::kMaxThreads];

Brought& own_turn() {
  const unsigned number = emulator::number_of(emulator::current_thread());
  return brought[number / kLanes][turn[number] ^= 1];
}

// Waits until all lanes have brought theirs. `.aligned`: the same instruction, of the whole warp.
void gather(Brought& all, unsigned line) {
  all.line[emulator::lane()] = line;
  const CallSite site{running_entry().file, static_cast<int>(line)};
  emulator::warp_collective(emulator::Operation::kWarpSync, 0xffffffffu, 0, 0, site);
  for (unsigned other : all.line) {
    if (other == line) continue;
    fault("the lanes of the warp are not all at this .aligned instruction, one is at line " + std::to_string(other),
          line);
  }
}

float element(Element type, uint32_t word, unsigned half, unsigned line) {
  if (type == Element::f16) return half_to_float(static_cast<uint16_t>(word >> (16 * half)));
  if (type == Element::bf16) return bfloat_to_float(static_cast<uint16_t>(word >> (16 * half)));
  const float value = as<float>(word);
  if ((word & 0x1fff) != 0 && value == value) fault("an operand of mma that was not rounded to tf32", line);
  return value;
}

}  // namespace

void start_thread_matrices() {
  turn[emulator::number_of(emulator::current_thread())] = 0;
}

// Four matrices of 8 rows of 16 bytes. Lane 8 * m + r names row r of matrix m. A lane gets of each matrix the elements
// (group, 2 * place) and (group, 2 * place + 1), where group = lane / 4 and place = lane % 4; of the transposed matrix
// (2 * place, group) and (2 * place + 1, group).
void load_matrices(uint32_t (&to)[4], uint32_t row, bool transposed, unsigned line) {
  shared_read(row, 16, line);  // the address is this lane's fault
  Brought& rows = own_turn();
  const unsigned lane = emulator::lane();
  rows.row[lane] = row;
  gather(rows, line);
  const unsigned group = lane / 4, place = lane % 4;
  for (unsigned matrix = 0; matrix < 4; ++matrix) {
    to[matrix] = 0;
    for (unsigned half = 0; half < 2; ++half) {
      const unsigned r = transposed ? 2 * place + half : group, column = transposed ? group : 2 * place + half;
      const uint32_t address = rows.row[8 * matrix + r] + 2 * column;
      to[matrix] |= uint32_t{load<uint16_t>(shared_read(address, 2, line))} << (16 * half);
    }
  }
}

// d (16x8) += a (16xK) * b (Kx8), K = 16 for halves and 8 for tf32. With group = lane / 4, place = lane % 4 and `e`
// elements in a word, word i of a lane holds of
//   a: row group + 8 * (i % 2), from column e * (place + 4 * (i / 2)) on
//   b: column group, from row e * (place + 4 * i) on
//   d: row group + 8 * (i / 2), column 2 * place + i % 2
// The ISA leaves the order of the sum open; here it is that of the columns of a, in float.
void multiply_matrices(Element type, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], unsigned line) {
  Brought& all = own_turn();
  const unsigned lane = emulator::lane();
  for (unsigned half = 0; half < 2; ++half) {
    for (unsigned i = 0; i < 4; ++i) all.a[lane][i][half] = element(type, a[i], half, line);
    for (unsigned i = 0; i < 2; ++i) all.b[lane][i][half] = element(type, b[i], half, line);
  }
  gather(all, line);
  const unsigned group = lane / 4, place = lane % 4, in_word = type == Element::tf32 ? 1 : 2;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = group + 8 * (i / 2), column = 2 * place + i % 2;
    for (unsigned k = 0; k < 8 * in_word; ++k) {
      const unsigned word = k / in_word, half = k % in_word;
      const float left = all.a[row % 8 * 4 + word % 4][row / 8 + 2 * (word / 4)][half];
      const float right = all.b[column * 4 + word % 4][word / 4][half];
      d[i] += left * right;
    }
    d[i] = canonical(d[i]);
  }
}

}  // namespace fastcv::ptx
