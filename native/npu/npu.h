/* The NPU device seen from Python and from the executor: plain C over an opaque handle.
 *
 * A device has one or several address spaces: the vendor's driver one with three cores, mainline three with a core
 * each. Buffers belong to a space and lie there at 32-bit addresses. A program is a chain of command words that Python
 * made; `bind` writes it into a buffer with the addresses of other buffers in it. `submit` starts one program on each
 * of some cores, `wait` sees it through: what fails is reset and run once more, then it is a failure of the device.
 * Every function that can fail returns null or a negative number and leaves one sentence in rl_error().
 *
 * Not for two threads at once, except rl_npu_sync, rl_npu_data and rl_npu_address. */
#ifndef ROCKLEDGE_NPU_H
#define ROCKLEDGE_NPU_H

#include "../rockledge.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { RL_NPU_AUTO = 0, RL_NPU_RKNPU = 1, RL_NPU_ROCKET = 2 };
enum { RL_NPU_TO_DEVICE = 1, RL_NPU_FROM_DEVICE = 2 };
enum { RL_NPU_CORES = 3, RL_NPU_ROLES = 8 };
enum { RL_NPU_OWN_WORDS = -1 };  /* as a role: the program itself, for links from program to program */

/* What no int32 sum of our programs can be: 131,071 products of int8 end above it. */
#define RL_NPU_SENTINEL INT32_MIN

typedef struct rl_npu rl_npu;

typedef struct rl_npu_description {
  char driver[16];         /* "rknpu" or "rocket" */
  char node[64];
  int32_t flavour;
  int32_t version[3];
  int32_t cores;
  int32_t spaces;
  int32_t iommu;           /* 1, 0, or -1: unknown */
  int32_t failed;          /* 1: given up after a reset did not help; open it anew */
  int64_t clock_hz;        /* 0: unknown */
  int64_t allocated_bytes; /* of all buffers, in whole pages */
  int64_t submits;         /* jobs started, repeats included */
  int64_t faults;          /* jobs that failed, were late, or left their output untouched */
  int64_t resets;
} rl_npu_description;

typedef struct rl_npu_relocation {
  int32_t word;    /* this word's value becomes the address of byte `offset` of `role` */
  int32_t role;
  int64_t offset;
} rl_npu_relocation;

typedef struct rl_npu_mark {
  int32_t role;    /* an int32 that the program surely writes, at byte `offset` of `role` */
  int32_t reserved;
  int64_t offset;
} rl_npu_mark;

/* A chain: `programs` programs, number i from word starts[i] with body_words[i] words before its trailer of four. */
typedef struct rl_npu_chain {
  const uint64_t *words;
  const rl_npu_relocation *relocations;
  const rl_npu_mark *marks;
  const int32_t *starts;
  const int32_t *body_words;
  int32_t n_words;
  int32_t n_relocations;
  int32_t n_marks;
  int32_t programs;
} rl_npu_chain;

/* Where a role lies: bytes first .. first+bytes-1 of the role are those from byte `offset` of `buffer`. */
typedef struct rl_npu_binding {
  int32_t buffer;  /* -1: the program does not name this role */
  int32_t written; /* 1: the program writes there */
  int64_t first;
  int64_t offset;
  int64_t bytes;
} rl_npu_binding;

typedef struct rl_npu_expected {
  int32_t buffer;
  int32_t reserved;
  int64_t offset;
  int64_t bytes;
  const uint8_t *data;
} rl_npu_expected;

/* Opens the device of a driver, or the first there is. The device is locked for this process until it is closed. */
RL_API rl_npu *rl_npu_open(int32_t flavour);
RL_API void rl_npu_close(rl_npu *npu);
RL_API int32_t rl_npu_describe(const rl_npu *npu, rl_npu_description *description);

/* A buffer of zeros in an address space; returns its number. `sync` hands a range to the device after the CPU wrote it
 * (RL_NPU_TO_DEVICE), or to the CPU after the device did. */
RL_API int32_t rl_npu_allocate(rl_npu *npu, int32_t space, int64_t bytes);
RL_API int32_t rl_npu_release(rl_npu *npu, int32_t buffer);
RL_API uint8_t *rl_npu_data(rl_npu *npu, int32_t buffer);
RL_API int64_t rl_npu_address(rl_npu *npu, int32_t buffer);
RL_API int32_t rl_npu_sync(rl_npu *npu, int32_t buffer, int64_t offset, int64_t bytes, int32_t direction);

/* Copies a chain whose words will lie from byte `offset` (a multiple of 16) of `buffer`; returns the program's number. */
RL_API int32_t rl_npu_program_create(rl_npu *npu, const rl_npu_chain *chain, int32_t buffer, int64_t offset);
RL_API int32_t rl_npu_program_destroy(rl_npu *npu, int32_t program);
/* Writes its words with the addresses of these roles, and hands them to the device. */
RL_API int32_t rl_npu_program_bind(rl_npu *npu, int32_t program, const rl_npu_binding *bindings, int32_t roles);

/* Starts bound programs, each on a core of its own; one submit at a time. They may not depend on each other. On a
 * device of several spaces they are of different spaces. */
RL_API int32_t rl_npu_submit(rl_npu *npu, const int32_t *programs, int32_t count, int32_t timeout_ms);
/* Waits for it. On return the CPU may read all that the programs wrote. */
RL_API int32_t rl_npu_wait(rl_npu *npu);

/* A job with known results (copied). It is run now and after every reset until it comes out right, three times at most:
 * the first job after a reset may report success and have done nothing. Returns how many runs it took. */
RL_API int32_t rl_npu_probe(rl_npu *npu, const int32_t *programs, int32_t count, const rl_npu_expected *expected,
                            int32_t n_expected, int32_t timeout_ms);

#ifdef __cplusplus
}
#endif
#endif
