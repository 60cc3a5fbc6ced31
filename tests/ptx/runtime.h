// What C++ translated from PTX calls. Each function is written from the PTX ISA and shares nothing with the twins in
// csrc/core/cuda; numbers named `line` are lines of the PTX, for messages.
#pragma once

#include <string>

#include "emulator/runtime.h"
#include "ptx/arithmetic.h"

namespace fastcv::ptx {

struct Extent {
  unsigned offset, size;  // in bytes
};

// A translated kernel.
struct Entry {
  const char* name;
  const char* file;
  void (*run)(const char* parameters);
  const Extent* parameters;
  unsigned parameter_count;
  const Extent* shared;  // its arrays, where the translation has put them
  unsigned shared_count;
  unsigned dynamic_address;
  unsigned static_bytes;  // of shared memory, as ptxas would count them
  unsigned max_threads;   // __launch_bounds__
  bool is_sm_90a;
};

// ---- memory: the address after all checks ---------------------------------------------------------------------------

const char* global_read(uint64_t address, unsigned bytes, unsigned line);
char* global_write(uint64_t address, unsigned bytes, unsigned line);
char* global_atomic(uint64_t address, unsigned bytes, unsigned line);
const char* shared_read(uint32_t address, unsigned bytes, unsigned line);
char* shared_write(uint32_t address, unsigned bytes, unsigned line);
char* shared_atomic(uint32_t address, unsigned bytes, unsigned line);
char* local(char* memory, unsigned size, uint64_t address, unsigned bytes, unsigned line);
const char* parameter_read(uint64_t address, unsigned bytes, unsigned line);

template <class T>
T load(const char* from, unsigned n = 0) {
  T value;
  __builtin_memcpy(&value, from + n * sizeof(T), sizeof(T));
  return value;
}

template <class T>
void store(char* to, unsigned n, T value) {
  __builtin_memcpy(to + n * sizeof(T), &value, sizeof(T));
}

template <class T, class Update>
T atomic_update(char* place, Update update) {
  const T before = load<T>(place);
  store<T>(place, 0, update(before));
  return before;
}
template <class T>
T atomic_add(char* place, T value) {
  return atomic_update<T>(place, [=](T before) { return T(before + value); });
}
template <class T>
T atomic_min(char* place, T value) {
  return atomic_update<T>(place, [=](T before) { return value < before ? value : before; });
}
template <class T>
T atomic_max(char* place, T value) {
  return atomic_update<T>(place, [=](T before) { return value > before ? value : before; });
}
template <class T>
T atomic_and(char* place, T value) {
  return atomic_update<T>(place, [=](T before) { return before & value; });
}
template <class T>
T atomic_or(char* place, T value) {
  return atomic_update<T>(place, [=](T before) { return before | value; });
}
template <class T>
T atomic_xor(char* place, T value) {
  return atomic_update<T>(place, [=](T before) { return before ^ value; });
}
template <class T>
T atomic_exch(char* place, T value) {
  return atomic_update<T>(place, [=](T) { return value; });
}
template <class T>
T atomic_cas(char* place, T expected, T desired) {
  const T before = load<T>(place);
  if (before == expected) store<T>(place, 0, desired);
  emulator::after_cas(before == expected);
  return before;
}

// ---- threads together -----------------------------------------------------------------------------------------------

void block_barrier(unsigned number, unsigned line);
bool block_barrier_or(unsigned number, bool predicate, unsigned line);
bool block_barrier_and(unsigned number, bool predicate, unsigned line);
uint32_t block_barrier_popc(unsigned number, bool predicate, unsigned line);
void warp_barrier(uint32_t mask, unsigned line);

enum class Shuffle { up, down, bfly, idx };
uint32_t shuffle(Shuffle mode, uint32_t value, uint32_t b, uint32_t c, uint32_t mask, bool& inside, unsigned line);

bool vote_any(bool predicate, uint32_t mask, unsigned line);
bool vote_all(bool predicate, uint32_t mask, unsigned line);
uint32_t vote_ballot(bool predicate, uint32_t mask, unsigned line);

// The value of another lane, all lanes of the mask asking for the same.
uint32_t value_of_lane(uint32_t value, unsigned lane, uint32_t mask, unsigned line);

// In the order of the lanes.
template <class T, class Combine>
T reduce(T value, uint32_t mask, unsigned line, Combine combine) {
  T result = 0;
  bool has_any = false;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if ((mask >> lane & 1) == 0) continue;
    const T other = T(value_of_lane(uint32_t(value), lane, mask, line));
    result = has_any ? combine(result, other) : other;
    has_any = true;
  }
  return result;
}
template <class T>
T reduce_add(T value, uint32_t mask, unsigned line) {
  return reduce(value, mask, line, [](T a, T b) { return T(uint32_t(a) + uint32_t(b)); });
}
template <class T>
T reduce_min(T value, uint32_t mask, unsigned line) {
  return reduce(value, mask, line, [](T a, T b) { return b < a ? b : a; });
}
template <class T>
T reduce_max(T value, uint32_t mask, unsigned line) {
  return reduce(value, mask, line, [](T a, T b) { return b > a ? b : a; });
}
template <class T>
T reduce_and(T value, uint32_t mask, unsigned line) {
  return reduce(value, mask, line, [](T a, T b) { return a & b; });
}
template <class T>
T reduce_or(T value, uint32_t mask, unsigned line) {
  return reduce(value, mask, line, [](T a, T b) { return a | b; });
}
template <class T>
T reduce_xor(T value, uint32_t mask, unsigned line) {
  return reduce(value, mask, line, [](T a, T b) { return a ^ b; });
}

// ---- asynchronous copies and tensor cores ---------------------------------------------------------------------------

// Of `bytes`, those from `taken` on are zero. They land when the thread waits for them; until then their place holds
// garbage, and reading or writing it is an error.
void copy_async(uint32_t to, uint64_t from, uint32_t bytes, uint32_t taken, unsigned line);
void commit_copies();
void wait_for_copies(uint32_t groups);

void load_matrices(uint32_t (&to)[4], uint32_t row, bool transposed, unsigned line);

enum class Element { f16, bf16, tf32 };
// d += a * b
void multiply_matrices(Element element, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], unsigned line);

// ---- warpgroups ----------------------------------------------------------------------------------------------------

// What is known of a register that a wgmma reads or writes. At first it counts as accessed.
enum RegisterFlag : uint8_t { kAccessed, kFenced, kInFlight };

[[noreturn]] void fault_register(unsigned line);

// By any instruction but wgmma.
inline void access_register(uint8_t& flag, unsigned line) {
  if (flag == kInFlight) fault_register(line);
  flag = kAccessed;
}
// wgmma.fence
inline void fence_registers(uint8_t* flags, unsigned count) {
  for (unsigned i = 0; i < count; ++i) {
    if (flags[i] == kAccessed) flags[i] = kFenced;
  }
}

struct WarpgroupProduct {
  Element element;
  unsigned columns;
  void* const* sums;  // columns / 2 registers, and their flags
  uint8_t* const* sum_flags;
  uint64_t left;               // a descriptor, or
  const uint32_t* left_words;  // what 4 registers hold
  void* const* left_registers;
  uint8_t* const* left_flags;
  uint64_t right;
  bool accumulates;
  int left_scale, right_scale;
};
// The sums arrive when the thread waits for their group; until then their registers hold NaN.
void multiply_warpgroup(const WarpgroupProduct& product, unsigned line);
void commit_products();
void wait_for_products(uint32_t groups);

// fence.proxy.async: what this thread has written to shared memory may now be read by wgmma.
void fence_async_proxy();

// ---- errors ---------------------------------------------------------------------------------------------------------

// Ends the launch with an EmulatorError.
[[noreturn]] void fault(const std::string& what, unsigned line);
[[noreturn]] void fault_division(unsigned line);

// The quotient of the lowest integer by -1 is that integer.
template <class T>
T divide(T a, T b, unsigned line) {
  if (b == 0) fault_division(line);  // its result is whatever the machine gives
  if (T(-1) < T(0) && b == T(-1)) return negate(a);
  return T(a / b);
}
template <class T>
T remainder(T a, T b, unsigned line) {
  if (b == 0) fault_division(line);
  if (T(-1) < T(0) && b == T(-1)) return 0;
  return T(a % b);
}

}  // namespace fastcv::ptx
