// Global memory: the tensors of the call. Shared memory: the block's arrays, and copies that have not landed.
#include "ptx/memory.h"

#include <cstring>
#include <string>
#include <vector>

#include "emulator/machine.h"
#include "ptx/launch.h"

namespace fastcv::ptx {

namespace {

struct Range {
  uint64_t begin, bytes;
};

thread_local std::vector<Range> noted;

// Of the launch under way.
std::vector<Range> ranges;
Range last_hit;

bool holds(const Range& range, uint64_t address, unsigned bytes) {
  return address - range.begin < range.bytes && range.bytes - (address - range.begin) >= bytes;
}

std::string in_words(const char* access, unsigned bytes, const std::string& place) {
  return std::string(access) + " of " + std::to_string(bytes) + " bytes at " + place;
}

// How far it is from the nearest tensor.
[[noreturn]] void fault_global(const char* access, uint64_t address, unsigned bytes, unsigned line) {
  const Range* nearest = nullptr;
  uint64_t least = ~uint64_t{0};
  for (const Range& range : ranges) {
    const uint64_t end = range.begin + range.bytes;
    const uint64_t distance = address < range.begin ? range.begin - address : address + bytes - end;
    if (distance >= least) continue;
    least = distance;
    nearest = &range;
  }
  if (nearest == nullptr) fault(in_words(access, bytes, "global memory, where the call has no tensor"), line);
  const bool before = address < nearest->begin;
  fault(in_words(access, bytes, "global memory, ") + std::to_string(least) + " bytes " +
            (before ? "before the beginning" : "past the end") + " of the nearest tensor or workspace, of " +
            std::to_string(nearest->bytes) + " bytes",
        line);
}

inline char* global(const char* access, uint64_t address, unsigned bytes, unsigned line) {
  if (address % bytes != 0) fault(in_words(access, bytes, "a global address that is not a multiple of it"), line);
  if (!holds(last_hit, address, bytes)) {
    bool found = false;
    for (const Range& range : ranges) {
      if (!holds(range, address, bytes)) continue;
      last_hit = range;
      found = true;
      break;
    }
    if (!found) fault_global(access, address, bytes, line);
  }
  return reinterpret_cast<char*>(address);
}

// ---- shared memory ----

constexpr unsigned kArenaBytes = 512 << 10, kChunk = 16;
alignas(16) char arena[kArenaBytes];
uint8_t under_way[kArenaBytes / kChunk];  // copies to these 16 bytes that have not landed
uint16_t held[kArenaBytes / kChunk];      // wgmma in flight that read these 16 bytes
unsigned held_count;
const Entry* entry;
Extent dynamic_array, last_array;

inline bool holds(const Extent& array, uint32_t address, unsigned bytes) {
  return address - array.offset < array.size && array.size - (address - array.offset) >= bytes;
}

// A copy writes at most 16 aligned bytes, and no access is wider or less aligned.
inline char* shared(const char* access, uint32_t address, unsigned bytes, unsigned line) {
  if (address % bytes != 0) fault(in_words(access, bytes, "a shared address that is not a multiple of it"), line);
  if (!holds(last_array, address, bytes)) {
    last_array = dynamic_array;
    for (unsigned i = 0; i < entry->shared_count && !holds(last_array, address, bytes); ++i) {
      last_array = entry->shared[i];
    }
    if (!holds(last_array, address, bytes)) {
      last_array = {0, 0};
      fault(in_words(access, bytes, "shared memory that belongs to no array, address " + std::to_string(address)),
            line);
    }
  }
  if (under_way[address / kChunk] != 0) {
    fault(in_words(access, bytes, "shared memory that an asynchronous copy is still writing to"), line);
  }
  return arena + address;
}

inline char* shared_to_write(const char* access, uint32_t address, unsigned bytes, unsigned line) {
  char* const place = shared(access, address, bytes, line);
  if (held[address / kChunk] != 0) {
    fault(in_words(access, bytes, "shared memory that a wgmma in flight reads"), line);
  }
  return place;
}

// ---- the asynchronous proxy, by which wgmma reads ----

// Of every word: the thread that wrote it last, from 1, and how many proxy fences that thread had executed then.
struct Written {
  uint16_t thread;
  uint16_t fences;
};
constexpr unsigned kWord = 4;
Written written[kArenaBytes / kWord];
uint16_t fences_of[emulator::kMaxThreads];

void note_written(uint32_t address, unsigned bytes) {
  if (!entry->is_sm_90a) return;
  const unsigned number = emulator::number_of(emulator::current_thread());
  for (unsigned word = address / kWord; word <= (address + bytes - 1) / kWord; ++word) {
    written[word] = {static_cast<uint16_t>(number + 1), fences_of[number]};
  }
}

// ---- asynchronous copies ----

struct Copy {
  uint32_t to, bytes;
  char data[16];
  unsigned group;
};

// Of each thread, in the order of its copies.
struct Copies {
  std::vector<Copy> pending;
  unsigned groups;  // closed
};
Copies copies_of[emulator::kMaxThreads];
size_t pending_copies;  // of all threads

Copies& own_copies() {
  return copies_of[emulator::number_of(emulator::current_thread())];
}

}  // namespace

void note_memory(const void* begin, size_t bytes) {
  if (bytes > 0) noted.push_back({reinterpret_cast<uint64_t>(begin), bytes});
}

void forget_memory() {
  noted.clear();
}

void use_noted_memory() {
  ranges = noted;
  last_hit = {0, 0};
}

void start_block_memory(const Entry& of, unsigned dynamic_bytes) {
  entry = &of;
  dynamic_array = {of.dynamic_address, dynamic_bytes};
  last_array = {0, 0};
  const size_t bytes = of.dynamic_address + dynamic_bytes;
  std::memset(arena, 0xff, bytes);  // as floats NaN
  if (of.is_sm_90a) {
    std::memset(written, 0, bytes / kWord * sizeof(Written));
  }
  if (held_count != 0) std::memset(held, 0, sizeof(held));  // of a launch that has failed
  held_count = 0;
  if (pending_copies == 0) return;
  for (Copies& copies : copies_of) copies.pending.clear();  // of a launch that has failed
  std::memset(under_way, 0, sizeof(under_way));
  pending_copies = 0;
}

void start_thread_memory() {
  own_copies().groups = 0;
  fences_of[emulator::number_of(emulator::current_thread())] = 0;
}

void check_no_copies(const Entry& of) {
  const size_t count = own_copies().pending.size();
  if (count == 0) return;
  emulator::fail_thread("the thread returned with " + std::to_string(count) + " asynchronous copies under way, from " +
                        of.name + " of " + of.file);
}

const char* global_read(uint64_t address, unsigned bytes, unsigned line) {
  return global("read", address, bytes, line);
}
char* global_write(uint64_t address, unsigned bytes, unsigned line) {
  return global("write", address, bytes, line);
}
char* global_atomic(uint64_t address, unsigned bytes, unsigned line) {
  return global("atomic update", address, bytes, line);
}

const char* shared_read(uint32_t address, unsigned bytes, unsigned line) {
  return shared("read", address, bytes, line);
}
char* shared_write(uint32_t address, unsigned bytes, unsigned line) {
  char* const place = shared_to_write("write", address, bytes, line);
  note_written(address, bytes);
  return place;
}
char* shared_atomic(uint32_t address, unsigned bytes, unsigned line) {
  char* const place = shared_to_write("atomic update", address, bytes, line);
  note_written(address, bytes);
  return place;
}

void fence_async_proxy() {
  ++fences_of[emulator::number_of(emulator::current_thread())];
}

const char* matrix_read(uint32_t address, unsigned line) {
  const char* const place = shared("wgmma's read", address, kChunk, line);
  for (unsigned word = address / kWord; word < (address + kChunk) / kWord; ++word) {
    const Written& last = written[word];
    if (last.thread == 0 || last.fences != fences_of[last.thread - 1]) continue;
    fault("wgmma reads shared memory that thread " + std::to_string(last.thread - 1) +
              " of the block has written, and made no fence.proxy.async since",
          line);
  }
  return place;
}
void hold_matrix(uint32_t address) {
  ++held[address / kChunk];
  ++held_count;
}
void release_matrix(uint32_t address) {
  --held[address / kChunk];
  --held_count;
}

char* local(char* memory, unsigned size, uint64_t address, unsigned bytes, unsigned line) {
  if (address % bytes != 0 || address > size || size - address < bytes) {
    fault(in_words("access", bytes, "local memory that is in no array, or not aligned"), line);
  }
  return memory + address;
}

void copy_async(uint32_t to, uint64_t from, uint32_t bytes, uint32_t taken, unsigned line) {
  if (taken > bytes) fault("an asynchronous copy of more bytes than it writes", line);
  char* const place = shared_to_write("asynchronous copy", to, bytes, line);
  if (from % bytes != 0) fault("asynchronous copy from a global address that is not a multiple of its size", line);
  Copies& own = own_copies();
  Copy copy{to, bytes, {}, own.groups};
  if (taken == bytes) {
    std::memcpy(copy.data, global("asynchronous copy", from, bytes, line), bytes);
  } else {
    for (uint32_t i = 0; i < taken; ++i) copy.data[i] = *global("asynchronous copy", from + i, 1, line);
  }
  std::memset(place, 0xff, bytes);
  ++under_way[to / kChunk];
  own.pending.push_back(copy);
  ++pending_copies;
}

void commit_copies() {
  ++own_copies().groups;
}

void wait_for_copies(uint32_t groups) {
  Copies& own = own_copies();
  size_t landed = 0;
  for (; landed < own.pending.size() && own.pending[landed].group + groups < own.groups; ++landed) {
    const Copy& copy = own.pending[landed];
    std::memcpy(arena + copy.to, copy.data, copy.bytes);
    note_written(copy.to, copy.bytes);
    --under_way[copy.to / kChunk];
    --pending_copies;
  }
  own.pending.erase(own.pending.begin(), own.pending.begin() + static_cast<ptrdiff_t>(landed));
}

}  // namespace fastcv::ptx

extern "C" void fastcv_ptx_note_memory(const void* begin, size_t bytes) {
  fastcv::ptx::note_memory(begin, bytes);
}
extern "C" void fastcv_ptx_forget_memory() {
  fastcv::ptx::forget_memory();
}
