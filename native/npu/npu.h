/* The NPU device seen from Python and from the executor: plain C over an opaque handle.
 *
 * A device has one or several address spaces: the vendor's driver one with three cores, mainline three with a core
 * each. Buffers belong to a space and lie there at 32-bit addresses. A program is a chain of command words that Python
 * made; `bind` writes it into a buffer with the addresses of other buffers in it. `submit` starts one program on each
 * of some cores, `wait` sees it through: what fails is reset and run once more, then it is a failure of the device.
 * Every function that can fail returns null or a negative number and leaves one sentence in rl_error().
 *
 * Not for two threads at once, except rl_npu_describe, rl_npu_sync, rl_npu_data and rl_npu_address. */
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
  int32_t cores;           /* in use */
  int32_t spaces;
  int32_t iommu;           /* 1, 0, or -1: unknown */
  int32_t failed;          /* 1: given up after a reset did not help; open it anew */
  int64_t clock_hz;        /* 0: unknown */
  int64_t allocated_bytes; /* of all buffers, in whole pages */
  int64_t submits;         /* jobs started, repeats included */
  int64_t faults;          /* jobs that failed, were late, or left their output untouched; syncs that failed */
  int64_t resets;
  int64_t job_ns;          /* of the latest job, from submit to its end */
  int64_t device_ns;       /* the same by the driver's own clock, which has only its work; 0 where it has none */
  int64_t syncs;             /* calls that hand memory over, those at allocation left out */
  int64_t cleaned_bytes;     /* to the device: of the ranges, or of whole buffers where the driver knows no others */
  int64_t invalidated_bytes; /* from it */
  int32_t core_mask;       /* bit i: core i is in use */
  int32_t reserved;
  int64_t sram_bytes;      /* system SRAM that the driver can give; -1: it does not say */
  int64_t sram_free_bytes;
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
  int32_t written; /* 1: the program writes there, and wait hands all of it to the CPU; 2: wait hands over the marks
                      alone, who reads more syncs it (a device of several spaces: wait hands over marked buffers) */
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

/* From now on programs are started on these cores: the i-th of a submit on the i-th of them, and no more than there are.
 * Bits as in core_mask; 1, 2, 4, 3 and 7 are the sets that the vendor's driver can start. On a device of several spaces
 * core i stands for space i. At first it is 7. */
RL_API int32_t rl_npu_use_cores(rl_npu *npu, int32_t core_mask);

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
 * the first job after a reset may report success and have done nothing. So it is before a job that comes `idle_ms` or more
 * after the one before it: a device that was powered off meanwhile. Returns how many runs it took. */
RL_API int32_t rl_npu_probe(rl_npu *npu, const int32_t *programs, int32_t count, const rl_npu_expected *expected,
                            int32_t n_expected, int32_t timeout_ms, int32_t idle_ms);

/* Sums of a lane as it left them, beside those that the CPU makes of the same operands; layouts and starts as below. */
typedef struct rl_npu_lane {
  const int8_t *input;
  const int8_t *weight;
  const int32_t *output;
  const int32_t *part_starts;
  const int32_t *tile_starts;
  int32_t n_parts, n_tiles, columns, sums;
} rl_npu_lane;
/* How many of the sums of these vectors and columns are wrong; of the first one `where` gets vector and column. */
RL_API int64_t rl_npu_wrong_sums(const rl_npu_lane *lane, const int32_t *vectors, int32_t n_vectors, const int32_t *columns,
                                 int32_t n_columns, int32_t *where);

/* A job with known results that may fail without the device being given up: run at most `runs` times, after a reset where
 * it failed or was late. Returns how many runs it took, or a negative number when it never came out right. */
RL_API int32_t rl_npu_try(rl_npu *npu, const int32_t *programs, int32_t count, const rl_npu_expected *expected,
                          int32_t n_expected, int32_t timeout_ms, int32_t runs);

/* Linears of a program's prefill steps on the NPU. The outputs of a linear (all bands) are cut into blocks, a block into
 * `lanes` lanes of `lane_columns` columns: lane c is what core c computes, of one address space on a device of several.
 * Columns beyond the linear's are computed and dropped; a lane that has no others is not started.
 *
 * Layouts, with V = rows * planes vectors of a step size (the planes of a token are neighbours):
 *   input   row tiles one after the other; that of m vectors from vector s on at byte s * inputs:
 *           int8 [inputs / 16][m][16]
 *   weight  of a lane, input parts one after the other; that from input p on at byte p * lane_columns:
 *           int8 [lane_columns / 32][part / 32][32 columns][32 inputs]
 *   output  of a lane, `sums` planes of V * lane_columns int32, whose sum counts; in each, row tiles one after the other:
 *           int32 [lane_columns / 4][m][4]
 * The programs have the roles input 0, weight 1, output 2 and scratch 3 (which may be absent), each from its byte 0 on. */
enum { RL_NPU_INPUT = 0, RL_NPU_WEIGHT = 1, RL_NPU_OUTPUT = 2, RL_NPU_SCRATCH = 3 };

/* The programs of a shape for steps of up to `rows` tokens. */
typedef struct rl_npu_size {
  const int32_t *tile_starts;          /* [n_tiles + 1] in vectors, multiples of 4, from 0 to rows * planes */
  int32_t n_tiles;
  int32_t rows;
  int32_t sums;                        /* planes of int32 in the output */
  int32_t programs[2][RL_NPU_CORES];   /* of each lane, twice: one is written while the other runs. -1: no such lane */
} rl_npu_size;

typedef struct rl_npu_shape {
  const int32_t *part_starts;          /* [n_parts + 1], multiples of 32, from 0 to inputs */
  const rl_npu_size *sizes;            /* by rising rows */
  int32_t n_parts;
  int32_t n_sizes;
  int32_t inputs;                      /* the linear's, rounded up to 32 */
  int32_t planes;
  int32_t lane_columns;                /* a multiple of 32 */
} rl_npu_shape;

/* Operation `op`, whose blocks are numbers first_block .. first_block + blocks - 1 of the plan's. */
typedef struct rl_npu_linear {
  int32_t op, shape, first_block, blocks;
} rl_npu_linear;

typedef struct rl_npu_place {
  int32_t buffer;
  int32_t reserved;
  int64_t offset;  /* a multiple of 64 */
} rl_npu_place;

typedef struct rl_npu_plan {
  const rl_npu_shape *shapes;
  const rl_npu_linear *linears;        /* by rising op */
  const int32_t *block_slot;           /* [n_blocks]: where a block's weights go. Blocks may share slots, then in turns */
  const rl_npu_place *slots;           /* [n_slots][lanes] */
  int32_t n_shapes, n_linears, n_blocks, n_slots;
  int32_t lanes;
  int32_t from_rows;                   /* steps of at least so many rows, and at most the largest size of all shapes */
  int32_t timeout_ms;                  /* of one block */
  int32_t reserved;
  rl_npu_place input[RL_NPU_CORES];    /* of each lane; the same for all in one address space */
  rl_npu_place output[2][RL_NPU_CORES];
  rl_npu_place scratch[RL_NPU_CORES];  /* buffer -1: none */
} rl_npu_plan;

/* Attention of a step's prompt rows on the NPU (formats/npu_attention_spec.py): rows of a sequence that follow each other,
 * `least_rows` or more of them, whose positions are `from` or above. They are shared by the lanes, each of which multiplies
 * the queries of its rows with the keys of a split of 512 positions, and then the weights with the values. Which rows go
 * there changes no result.
 *
 * Vectors, with G query heads to a KV head: head g of a lane's row r is number r * G + g of queries and scores; its weights
 * and sums are numbers 2 (r * G + g), of the high plane, and the next, of the low one. They lie in tiles of equal size, as
 * many as the vectors of `rows` rows need, one after the other. With D inputs of a head, rounded up to 32:
 *   queries int8 [D / 16][score_tile][16]         keys   int8 [512 / 32][D / 32][32 positions][32 inputs]
 *   scores  int32 [512 / 4][score_tile][4]
 *   weights int8 [512 / 16][sum_tile][16]         values int8 [D / 32][512 / 32][32 columns][32 positions]
 *   sums    int32 [D / 4][sum_tile][4]
 * The programs have the roles input (queries or weights), weight (keys or values) and output, each from its byte 0 on. */
enum { RL_NPU_SPLIT = 512 };

typedef struct rl_npu_attention_size {
  int32_t rows;                              /* of a lane, at most */
  int32_t score_tile, sum_tile;              /* multiples of 4 */
  int32_t score_programs[2][RL_NPU_CORES];   /* of each lane, twice: one is written while the other is read */
  int32_t sum_programs[RL_NPU_CORES];
} rl_npu_attention_size;

typedef struct rl_npu_attention {
  const rl_npu_attention_size *sizes;        /* by rising rows */
  int32_t n_sizes;
  int32_t lanes;
  int32_t from;
  int32_t least_rows;
  int32_t timeout_ms;                        /* of a job */
  int32_t reserved;
  rl_npu_place queries[RL_NPU_CORES];
  rl_npu_place keys[RL_NPU_CORES];           /* of each lane; the same for all in one address space, as are values */
  rl_npu_place scores[2][RL_NPU_CORES];
  rl_npu_place weights[RL_NPU_CORES];
  rl_npu_place values[RL_NPU_CORES];
  rl_npu_place sums[RL_NPU_CORES];
} rl_npu_attention;

typedef struct rl_npu_work {
  int64_t steps;           /* with linears on the NPU, also if they ended on the CPU */
  int64_t rows;            /* of those steps */
  int64_t blocks;          /* that came back from the NPU */
  int64_t unpacked_bytes;  /* of int8 weights */
  int64_t waited_ns;       /* for the NPU, by the thread that waits */
  int64_t busy_ns;         /* from a block's start until its end was seen, all blocks together */
  int64_t fallbacks;       /* times that the NPU was left during a step */
  int64_t attention_rows;  /* of steps with attention on the NPU: rows that had it there */
  int64_t attention_jobs;  /* that came back */
  int32_t stopped;         /* 1: the NPU is not used any more, for `reason` */
  char reason[508];
} rl_npu_work;

/* From the next step on, those linears of large steps run on the NPU, to the same floats; null for npu and plan: on the
 * CPU again. The plan is copied, everything in it is checked. For as long as the step uses it, its buffers and programs
 * cannot be released and may not be bound or submitted by others, and the device stays open. Refused while a step runs,
 * and for a device that another one uses. A step whose NPU fails ends on the CPU, as do all after it. */
RL_API int32_t rl_step_use_npu(rl_step *step, rl_npu *npu, const rl_npu_plan *plan);
/* From the next step on, attention too; null: on the CPU again. As above, for a step that uses an NPU already. */
RL_API int32_t rl_step_attend_on_npu(rl_step *step, const rl_npu_attention *plan);
/* What has been done so far; also while a step runs, but not while the plan changes. Zeros without a plan. */
RL_API int32_t rl_step_npu_work(const rl_step *step, rl_npu_work *work);

#ifdef __cplusplus
}
#endif
#endif
