// wgmma, from "Asynchronous Warpgroup Level Matrix Instructions" of the PTX ISA.
//
// A thread makes its own sums when it comes to the instruction and waits for no other: what another warp has still to
// write to shared memory is not there yet. Sums lie aside until the thread waits for their group.
#include <cstring>
#include <deque>
#include <string>
#include <vector>

#include "emulator/machine.h"
#include "ptx/launch.h"
#include "ptx/memory.h"
#include "ptx/runtime.h"

namespace fastcv::ptx {

namespace {

constexpr unsigned kGroupThreads = 128, kRows = 64, kDepth = 16, kChunkBytes = 16;
constexpr unsigned kChunks = kDepth * 2 / kChunkBytes;  // of a row of halves

// ---- matrices in shared memory ----

// "Matrix Descriptor Format" and "Shared Memory Matrix Layout", rows contiguous along k.
struct Matrix {
  uint32_t start, leading, stride, row_bytes;

  Matrix(uint64_t descriptor, unsigned line) {
    const auto field = [&](unsigned bit) { return static_cast<uint32_t>(descriptor >> bit & 0x3fff) << 4; };
    start = field(0), leading = field(16), stride = field(32);
    const unsigned base_offset = descriptor >> 49 & 7, swizzle = descriptor >> 62;
    row_bytes = swizzle == 0 ? kChunkBytes : 256u >> swizzle;  // 1: 128 bytes, 2: 64, 3: 32
    if (base_offset != 0) fault("a base offset of a matrix is not known", line);
    if (swizzle == 0) return;
    const uint32_t within = start % row_bytes;
    if ((start - within) % (8 * row_bytes) != 0) {
      fault("a swizzled matrix that does not begin where its pattern does, at a multiple of " +
                std::to_string(8 * row_bytes) + " bytes",
            line);
    }
    if (within + kDepth * 2 > row_bytes) fault("16 columns that are not in one swizzled row", line);
  }

  // The address of eight elements. Rows come in groups of eight, `stride` bytes apart. Without swizzle a group is two
  // matrices of 8 x 16 bytes, `leading` bytes apart; else its rows lie `row_bytes` apart and the 16-byte unit within a
  // row is changed by the address' bits from 7 on.
  uint32_t chunk(unsigned row, unsigned n) const {
    const uint32_t group = start + row / 8 * stride, in_group = row % 8 * row_bytes;
    if (row_bytes == kChunkBytes) return group + in_group + n * leading;
    const uint32_t plain = group + in_group + n * kChunkBytes;
    return plain ^ ((plain >> 7 & (row_bytes / kChunkBytes - 1)) << 4);
  }
};

void read_row(const Matrix& matrix, unsigned row, Element type, int scale, float (&to)[kDepth], unsigned line) {
  for (unsigned n = 0; n < kChunks; ++n) {
    const char* const from = matrix_read(matrix.chunk(row, n), line);
    for (unsigned i = 0; i < 8; ++i) {
      const uint16_t bits = load<uint16_t>(from, i);
      const float value = type == Element::f16 ? half_to_float(bits) : bfloat_to_float(bits);
      to[n * 8 + i] = scale < 0 ? -value : value;
    }
  }
}

// ---- what is under way ----

// A wgmma of a warpgroup: all threads must come to the same, and wait for it.
struct Issued {
  unsigned line, waited;
  uint64_t left, right;
  bool accumulates;
  std::vector<uint32_t> chunks;  // of its matrices
};
struct Warpgroup {
  std::deque<Issued> issued;
  unsigned first;  // the number of issued[0]
  bool has_exited;
  unsigned exited_with;  // products, of the first thread that returned
};
Warpgroup warpgroups[emulator::kMaxThreads / kGroupThreads];

// Registers of a thread: sums with their values, or fragments of a left operand.
struct Registers {
  std::vector<void*> places;
  std::vector<uint8_t*> flags;
  std::vector<float> values;
  unsigned group, columns;
};
struct Products {
  std::vector<Registers> open;
  std::vector<unsigned> groups_of;  // of the products not waited for, from number `first` on
  unsigned first, groups;           // groups that are closed
};
Products products_of[emulator::kMaxThreads];

unsigned own_number() {
  return emulator::number_of(emulator::current_thread());
}

void hold(Issued& product, const Matrix& matrix, unsigned rows) {
  for (unsigned row = 0; row < rows; ++row) {
    for (unsigned n = 0; n < kChunks; ++n) {
      matrix_read(matrix.chunk(row, n), product.line);
      product.chunks.push_back(matrix.chunk(row, n));
      hold_matrix(product.chunks.back());
    }
  }
}

// The product's place in the warpgroup's order; the first thread that comes makes it.
void agree(const WarpgroupProduct& p, unsigned line) {
  const unsigned number = own_number();
  Warpgroup& group = warpgroups[number / kGroupThreads];
  const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
  if (threads < (number / kGroupThreads + 1) * kGroupThreads) fault("wgmma by fewer than 128 threads", line);
  Products& own = products_of[number];
  const size_t place = own.first + own.groups_of.size() - group.first;
  if (place == group.issued.size()) {
    group.issued.push_back({line, 0, p.left, p.right, p.accumulates, {}});
    Issued& product = group.issued.back();
    if (p.left_words == nullptr) hold(product, Matrix(p.left, line), kRows);
    hold(product, Matrix(p.right, line), p.columns);
  }
  const Issued& product = group.issued[place];
  if (product.line != line || product.left != p.left || product.right != p.right ||
      product.accumulates != p.accumulates) {
    fault("the threads of a warpgroup are not all at this wgmma with the same matrices, one is at line " +
              std::to_string(product.line),
          line);
  }
  own.groups_of.push_back(own.groups);
}

// Those registers, in flight in the same shape.
Registers* find(std::vector<Registers>& open, void* const* places, unsigned count, unsigned columns) {
  for (Registers& registers : open) {
    if (registers.columns != columns || registers.places.size() != count) continue;
    if (std::memcmp(registers.places.data(), places, count * sizeof(void*)) == 0) return &registers;
  }
  return nullptr;
}

void check_fenced(uint8_t* const* flags, unsigned count, bool may_be_in_flight, unsigned line) {
  for (unsigned i = 0; i < count; ++i) {
    if (*flags[i] == kAccessed) fault("a register of wgmma that was accessed after the last wgmma.fence", line);
    if (*flags[i] == kInFlight && !may_be_in_flight) {
      fault("a register of wgmma that is in flight in another shape or place", line);
    }
  }
}

Registers& own_registers(void* const* places, uint8_t* const* flags, unsigned count, unsigned columns, unsigned line) {
  Products& own = products_of[own_number()];
  Registers* found = find(own.open, places, count, columns);
  check_fenced(flags, count, found != nullptr, line);
  if (found == nullptr) {
    own.open.push_back({{places, places + count}, {flags, flags + count}, {}, 0, columns});
    found = &own.open.back();
    for (unsigned i = 0; i < count; ++i) *flags[i] = kInFlight;
  }
  found->group = own.groups;
  return *found;
}

// The rows lane / 4 and lane / 4 + 8 of the 16 of this warp. Register i of a lane holds of row lane / 4 + 8 * (i % 2) the
// columns 2 * (lane % 4) + 8 * (i / 2) and the next.
void gather_left(const WarpgroupProduct& p, float (&rows)[2][kDepth], unsigned line) {
  const unsigned lane = emulator::lane();
  for (unsigned i = 0; i < 4; ++i) {
    for (unsigned place = 0; place < 4; ++place) {
      const uint32_t word = value_of_lane(p.left_words[i], lane / 4 * 4 + place, 0xffffffffu, line);
      for (unsigned half = 0; half < 2; ++half) {
        const uint16_t bits = static_cast<uint16_t>(word >> (16 * half));
        const float value = p.element == Element::f16 ? half_to_float(bits) : bfloat_to_float(bits);
        rows[i % 2][8 * (i / 2) + 2 * place + half] = p.left_scale < 0 ? -value : value;
      }
    }
  }
}

}  // namespace

void fault_register(unsigned line) {
  fault("access to a register that a wgmma in flight reads or writes", line);
}

void start_block_products() {
  for (Warpgroup& group : warpgroups) {
    group.issued.clear();
    group.first = 0;
    group.has_exited = false;
  }
}

void start_thread_products() {
  Products& own = products_of[own_number()];
  own.open.clear();
  own.groups_of.clear();
  own.first = own.groups = 0;
}

void end_thread_products() {
  const unsigned number = own_number();
  const Products& own = products_of[number];
  const Entry& entry = running_entry();
  const auto where = [&] { return std::string(", from ") + entry.name + " of " + entry.file; };
  if (!own.groups_of.empty()) {
    emulator::fail_thread("the thread returned with " + std::to_string(own.groups_of.size()) + " wgmma under way" +
                          where());
  }
  Warpgroup& group = warpgroups[number / kGroupThreads];
  if (!group.has_exited) group.exited_with = own.first;
  group.has_exited = true;
  if (group.exited_with != own.first) {
    emulator::fail_thread("the threads of a warpgroup have executed " + std::to_string(own.first) + " and " +
                          std::to_string(group.exited_with) + " wgmma" + where());
  }
}

// Register i of a lane holds the sum of row lane / 4 + 8 * (i / 2 % 2) of the warp's 16, column 8 * (i / 4) +
// 2 * (lane % 4) + i % 2. The ISA leaves the order of a sum open; here it is that of k, in float.
void multiply_warpgroup(const WarpgroupProduct& p, unsigned line) {
  const unsigned lane = emulator::lane(), warp = own_number() / 32 % 4, count = p.columns / 2;
  agree(p, line);
  float rows[2][kDepth], column[kDepth];
  if (p.left_words != nullptr) {
    own_registers(p.left_registers, p.left_flags, 4, 0, line);
    gather_left(p, rows, line);
  } else {
    const Matrix left(p.left, line);
    for (unsigned h = 0; h < 2; ++h)
      read_row(left, 16 * warp + lane / 4 + 8 * h, p.element, p.left_scale, rows[h], line);
  }
  Registers& sums = own_registers(p.sums, p.sum_flags, count, p.columns, line);
  if (sums.values.empty()) {
    sums.values.resize(count);
    for (unsigned i = 0; i < count; ++i) {
      std::memcpy(&sums.values[i], p.sums[i], sizeof(float));
      std::memset(p.sums[i], 0xff, sizeof(float));
    }
  }
  const Matrix right(p.right, line);
  for (unsigned c = 0; c < p.columns / 4; ++c) {
    read_row(right, c / 2 * 8 + 2 * (lane % 4) + c % 2, p.element, p.right_scale, column, line);
    for (unsigned h = 0; h < 2; ++h) {
      float& sum = sums.values[c / 2 * 4 + 2 * h + c % 2];
      if (!p.accumulates) sum = 0;
      for (unsigned k = 0; k < kDepth; ++k) sum += rows[h][k] * column[k];
      sum = canonical(sum);
    }
  }
}

void commit_products() {
  ++products_of[own_number()].groups;
}

void wait_for_products(uint32_t groups) {
  const unsigned number = own_number();
  Products& own = products_of[number];
  Warpgroup& group = warpgroups[number / kGroupThreads];
  const auto is_done = [&](unsigned of) { return of + groups < own.groups; };
  std::vector<Registers> left;
  for (Registers& registers : own.open) {
    if (!is_done(registers.group)) {
      left.push_back(registers);
      continue;
    }
    for (size_t i = 0; i < registers.places.size(); ++i) {
      if (!registers.values.empty()) std::memcpy(registers.places[i], &registers.values[i], sizeof(float));
      *registers.flags[i] = kFenced;
    }
  }
  own.open = left;
  size_t done = 0;
  for (; done < own.groups_of.size() && is_done(own.groups_of[done]); ++done) {
    Issued& product = group.issued[own.first + done - group.first];
    if (++product.waited < kGroupThreads) continue;
    for (uint32_t chunk : product.chunks) release_matrix(chunk);
    product.chunks.clear();
  }
  own.groups_of.erase(own.groups_of.begin(), own.groups_of.begin() + static_cast<ptrdiff_t>(done));
  own.first += static_cast<unsigned>(done);
  while (!group.issued.empty() && group.issued.front().waited == kGroupThreads) {
    group.issued.pop_front();
    ++group.first;
  }
}

}  // namespace fastcv::ptx
