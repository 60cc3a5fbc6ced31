// The memory that a block shares: a fresh heap block for each array, so that AddressSanitizer knows its ends.
#include <cstdlib>
#include <cstring>
#include <new>

#include "emulator/machine.h"

namespace fastcv::emulator {

namespace {

int dynamic_declaration;

SharedArray* add_shared(const void* declaration, size_t bytes, size_t alignment) {
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment < 16 ? 16 : alignment, bytes) != 0) throw std::bad_alloc();
  std::memset(memory, 0xff, bytes);
  machine.shared = new SharedArray{declaration, memory, bytes, machine.shared};
  release(machine.shared);
  return machine.shared;
}

SharedArray* find_shared(const void* declaration) {
  for (SharedArray* array = machine.shared; array != nullptr; array = array->next) {
    if (array->declaration != declaration) continue;
    acquire(array);
    return array;
  }
  return nullptr;
}

void free_list(SharedArray*& list) {
  while (list != nullptr) {
    SharedArray* array = list;
    list = array->next;
    std::free(array->memory);
    delete array;
  }
}

}  // namespace

void* shared_array(const void* declaration, size_t bytes, size_t alignment) {
  current_thread();
  if (SharedArray* array = find_shared(declaration)) return array->memory;
  size_t total = bytes;
  for (const SharedArray* array = machine.shared; array != nullptr; array = array->next) {
    if (array->declaration != &dynamic_declaration) total += array->bytes;
  }
  if (total > kMaxStaticBytes) {
    fail_thread("FASTCV_SHARED arrays of " + std::to_string(total) +
                " bytes: a kernel has at most 48 KiB; use FASTCV_DYNAMIC_SHARED");
  }
  const size_t most = max_shared_bytes(*machine.call);
  if (total + machine.call->shared_bytes > most) {
    fail_thread("a block has at most " + std::to_string(most >> 10) + " KiB of shared memory, asked for " +
                std::to_string(machine.call->shared_bytes) + " bytes beside FASTCV_SHARED arrays of " +
                std::to_string(total));
  }
  return add_shared(declaration, bytes, alignment)->memory;
}

void* dynamic_shared() {
  current_thread();
  if (SharedArray* array = find_shared(&dynamic_declaration)) return array->memory;
  return add_shared(&dynamic_declaration, machine.call->shared_bytes, 16)->memory;
}

Token* new_token() {
  machine.tokens = new Token{machine.tokens};
  return machine.tokens;
}

void free_tokens() {
  while (machine.tokens != nullptr) {
    Token* token = machine.tokens;
    machine.tokens = token->next;
    delete token;
  }
  free_list(machine.retired_shared);
}

// ThreadSanitizer would take freeing memory while its users' end is not known yet for a race.
void free_shared() {
  if (!kThreadSanitizer) return free_list(machine.shared);
  while (machine.shared != nullptr) {
    SharedArray* array = machine.shared;
    machine.shared = array->next;
    array->next = machine.retired_shared;
    machine.retired_shared = array;
  }
}

}  // namespace fastcv::emulator
