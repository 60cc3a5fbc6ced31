// Barriers, votes and shuffles of PTX, over the emulator's own waiting.
#include "emulator/machine.h"
#include "ptx/launch.h"
#include "ptx/runtime.h"

namespace fastcv::ptx {

namespace {

using emulator::Operation;

CallSite site(unsigned line) {
  return {running_entry().file, static_cast<int>(line)};
}

int barrier(Operation operation, unsigned number, bool predicate, unsigned line) {
  if (number != 0) fault("barrier " + std::to_string(number) + ": only barrier 0 is known", line);
  return emulator::block_barrier(operation, predicate, site(line));
}

uint64_t in_warp(Operation operation, uint32_t mask, uint64_t value, unsigned line) {
  return emulator::warp_collective(operation, mask, value, 0, site(line));
}

}  // namespace

void block_barrier(unsigned number, unsigned line) {
  barrier(Operation::kBlockSync, number, false, line);
}
bool block_barrier_or(unsigned number, bool predicate, unsigned line) {
  return barrier(Operation::kBlockAny, number, predicate, line) != 0;
}
bool block_barrier_and(unsigned number, bool predicate, unsigned line) {
  return barrier(Operation::kBlockAll, number, predicate, line) != 0;
}
uint32_t block_barrier_popc(unsigned number, bool predicate, unsigned line) {
  return static_cast<uint32_t>(barrier(Operation::kBlockCount, number, predicate, line));
}

void warp_barrier(uint32_t mask, unsigned line) {
  in_warp(Operation::kWarpSync, mask, 0, line);
}

// "shfl.sync": the lane to read from, by the pseudo-code there. The five low bits of c clamp the lane, the bits from 8 on
// split the warp into segments.
uint32_t shuffle(Shuffle mode, uint32_t value, uint32_t b, uint32_t c, uint32_t mask, bool& inside, unsigned line) {
  const int lane = static_cast<int>(emulator::lane()), by = static_cast<int>(b & 31), clamp = static_cast<int>(c & 31);
  const int segment = static_cast<int>(c >> 8 & 31);
  const int highest = (lane & segment) | (clamp & ~segment), lowest = lane & segment;
  int source = lane;
  switch (mode) {
    case Shuffle::up:
      source = lane - by;
      inside = source >= highest;
      break;
    case Shuffle::down:
      source = lane + by;
      inside = source <= highest;
      break;
    case Shuffle::bfly:
      source = lane ^ by;
      inside = source <= highest;
      break;
    case Shuffle::idx:
      source = lowest | (by & ~segment);
      inside = source <= highest;
      break;
  }
  if (!inside) source = lane;
  return static_cast<uint32_t>(emulator::warp_collective(Operation::kShuffle, mask, value, source, site(line)));
}

bool vote_any(bool predicate, uint32_t mask, unsigned line) {
  return in_warp(Operation::kAny, mask, predicate, line) != 0;
}
bool vote_all(bool predicate, uint32_t mask, unsigned line) {
  return in_warp(Operation::kAll, mask, predicate, line) != 0;
}
uint32_t vote_ballot(bool predicate, uint32_t mask, unsigned line) {
  return static_cast<uint32_t>(in_warp(Operation::kBallot, mask, predicate, line));
}

uint32_t value_of_lane(uint32_t value, unsigned lane, uint32_t mask, unsigned line) {
  const int from = static_cast<int>(lane);
  return static_cast<uint32_t>(emulator::warp_collective(Operation::kShuffle, mask, value, from, site(line)));
}

}  // namespace fastcv::ptx
