/* The whole interface between Python and the native core: plain C, called through ctypes.
 *
 * Python decides, C++ executes. A program is a flat list of operations over a table of buffers; the core
 * plans one arena for a step's rows and runs a whole step (some tokens of some sequences) in one call.
 * Every function that can fail returns null or a negative number and leaves one sentence in rl_error(). */
#ifndef ROCKLEDGE_H
#define ROCKLEDGE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RL_ABI 10
#if defined(__GNUC__)
#define RL_API __attribute__((visibility("default")))
#else
#define RL_API
#endif

enum { RL_KERNEL_AUTO = -1, RL_KERNEL_PORTABLE = 0, RL_KERNEL_AVX2 = 1, RL_KERNEL_NEON = 2, RL_KERNEL_VNNI = 3, RL_KERNEL_VNNI512 = 4 };

/* Rows of one linear that share a code width, packed by docs/formats.md (strips of 8 rows, tiles of
 * 8 rows x 32 inputs). `codes` and `index` are 64-byte aligned and mapped read-only. */
typedef struct rl_band {
  const uint8_t *codes;
  const uint8_t *index;  /* null when bits == 8 */
  const int8_t *tables;  /* [16 tables][16 entries]; null when bits == 8 */
  const float *scale;    /* [rows] */
  const float *bias;     /* [rows] or null */
  int32_t rows;          /* logical rows; strips = ceil(rows / 8) */
  int32_t cols;          /* logical inputs; tiles per strip = ceil(cols / 32) */
  int32_t bits;          /* 2, 3, 4 or 8 */
  int32_t out_column;    /* where this band's first row lands in the output row */
} rl_band;

enum {
  RL_FLOAT = 0,   /* fp32 [row][width] */
  RL_INT8 = 1     /* int8 [row * planes + plane][width rounded up to 32, zero padded]; plane 0 is hi */
};
typedef struct rl_buffer {
  int32_t kind;
  int32_t width;   /* elements of one row */
  int32_t planes;  /* RL_INT8: 1 or 2 (x16 = 256 * hi + lo); else 1 */
  int32_t slot;    /* buffers with the same slot may share memory: Python has seen that their lives do not overlap */
} rl_buffer;

/* Operations. `in`, `out` are buffer numbers, -1 when unused. R is the number of rows of the step, or of
 * its logit rows where `on_logits` is 1. All floats are fp32.
 *
 * code               in                        out                 dim                               weight
 * RL_EMBED           -                         x                   -                                 - (bands of the embedding); real[0] scale of the rows
 * RL_NORM_QUANT      x                         q, sx               block (0: no Hadamard)            [0] gain or null; real[0] eps
 * RL_NORM            x                         y (or -2)           -                                 [0] gain or null; real[0] eps
 * RL_NORM_ADD        x, residual               y                   -                                 [0] gain or null; real[0] eps
 * RL_QUANT           x                         q, sx               block                             -
 * RL_LINEAR          q, sx, residual (or -1)   y                   -                                 - (bands)   out = -2: step logits
 * RL_ROPE_KV         qkv                       q8, sq, terms (-1)  layer, pool, turned, whole        [0] inverse frequencies [turned/2] or null,
 *                                                                                                    [1] q gain, [2] k gain or null, [3] score bias
 *                                                                                                    [kv_heads*hd] or null; real: eps, factor, scale,
 *                                                                                                    growth, growth length
 * RL_ATTENTION       q8, sq, terms (or -1)     y                   layer, pool                       [0], [3] as RL_ROPE_KV where there are terms;
 *                                                                                                    real: scale, softcap
 * RL_GATED_QUANT     gate|up                   q, sx               block, activation                 -
 * RL_GATHER          x                         y (logit rows; or -2) -                               -
 * RL_ROTATE          x                         y (or -2)           block, odd, inverse (0/1)         [0] signs [width], [1] mix [odd][odd], [2] gain or null
 * RL_LOGITS          -                         -2                  -                                 -; real: scale, softcap
 *
 * Layers are numbered inside their KV pool.
 * A block is a power of two that divides the channels: a normalised Hadamard transform of each block comes before the
 * rounding. RL_NORM_ADD: y = residual + norm(x) * gain; y may be the residual. RL_GATED_QUANT: activation(gate) * up, with
 * RL_SILU or RL_GELU_TANH. RL_LOGITS works in place, on the step's logits that an operation before it wrote.
 * Step logits are what a step gives back: those of a head or, of a model without one, the rows that it would read.
 * A softcap c makes c * tanh(s / c) of a score or logit s, which is already times the scale; 0 leaves it.
 *
 * RL_ROPE_KV: qkv is [heads*hd | kv_heads*hd | kv_heads*hd]; q8 is one int8 plane of heads*(hd rounded up to 32), each
 * head zero padded, with one scale per head (sq has width heads); K (after RoPE) and V go to the cache, padded alike, int8
 * with one fp32 scale per token and kv head.
 * The gains are [head_dim] and their norms per head where `whole` is 0; where it is 1 they are [heads*hd] and
 * [kv_heads*hd], and each norm spans all its heads. Channels i and i + turned/2 of a head, i < turned/2, turn as a pair, by
 * cosines and sines times `factor`; those from `turned` (even, 0 to head_dim) on stay, and where it is 0, [0] is null.
 * Queries at position p are then multiplied by 1 + growth * ln(1 + floor(p / growth length)); growth 0 leaves them.
 * Operations with the same frequencies have the same `turned` and `factor`.
 * A score bias belongs to K but is not in qkv: it goes past the cache, into the scores, in floats. Rotated to position s
 * its pair (b, c) and the rotated query's pair (x, y) give (x b + y c) cos(s f) + (y b - x c) sin(s f): the factors, times
 * factor and scale (RL_ATTENTION's), are the terms, fp32 heads*hd, a head's turned/2 cosine terms, then its sine terms.
 * Pairs of two zeros are left out. The bias of channels that do not turn is in qkv like any other: here it is zero. So is
 * all of it where keys have a norm, which divides what qkv holds.
 * RL_ROTATE forward: y = ((x * signs) viewed [odd][block], normalised Hadamard over block, mix: y[i] = sum_j x[j] mix[j][i]),
 * gain multiplies the result; inverse runs it backwards (mix transposed, Hadamard, signs), then the gain.
 * Linear epilogue, exactly: y = float(sum) * (scale[n] * sx[t]), then + bias[n], then + residual; with two planes
 * sum = 256 * hi + lo in int64, rounded once to float. */
enum {
  RL_EMBED = 1, RL_NORM_QUANT, RL_NORM, RL_QUANT, RL_LINEAR, RL_ROPE_KV, RL_ATTENTION,
  RL_GATED_QUANT, RL_GATHER, RL_ROTATE, RL_NORM_ADD, RL_LOGITS
};
enum { RL_SILU = 0, RL_GELU_TANH = 1 };  /* GELU by tanh: x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) */
typedef struct rl_op {
  int32_t code;
  int32_t on_logits;
  int32_t in[3];
  int32_t out[3];
  int32_t first_band;
  int32_t bands;
  int32_t dim[4];
  float real[6];
  const float *weight[4];
} rl_op;

/* The KV pages of the layers that see equally far back. A page holds its tokens of all these layers. */
typedef struct rl_pool {
  int32_t layers;
  int32_t pages;
  int32_t window;        /* positions that a query sees, its own the last; 0: all up to it */
} rl_pool;

typedef struct rl_shape {
  int32_t max_rows;      /* rows of the largest step */
  int32_t heads, kv_heads, head_dim;  /* head_dim: even, 2 to 512 */
  int32_t page_tokens;   /* tokens of a KV page: a power of two, 8 to 512 */
  int32_t context;       /* positions are below it */
  int32_t pools;
  const rl_pool *pool;   /* [pools] */
  int32_t logit_rows;    /* rows with draws in a step at most, whose logits stay in its memory; 0: none */
} rl_shape;

typedef struct rl_sampling {
  float temperature;  /* <= 0: greedy */
  float top_p;        /* 1: off */
  float min_p;        /* 0: off */
  int32_t top_k;      /* 0: off */
  uint64_t seed;
} rl_sampling;

/* What becomes of one row of logits: a token is drawn, or one that is given is scored. It belongs to the caller, who keeps
 * it from step to step and writes only what changes. Results depend on nothing but the row's logits and these fields.
 *
 * Tokens that may not be drawn are left out; then, on the logits, in this order: the bias; the repetition penalty of tokens
 * seen in prompt or answer, by which positive logits are divided and others multiplied; the frequency penalty times how
 * often a token is in the answer and the presence penalty if it is there at all, subtracted. From those logits a token is
 * drawn: temperature, then top-k, then min-p, then top-p. `number` numbers the draws of a request, so that (seed, number)
 * fixes the choice. Log probabilities are of the logits before all of that, in double. */
typedef struct rl_draw {
  rl_sampling sampling;
  uint64_t number;
  float repetition;             /* above 0; 1: off */
  float presence, frequency;    /* 0: off */
  int32_t given;                /* the token to be scored; -1: one is drawn */
  int32_t scored;               /* 1: logprob and the most probable tokens are wanted; 0: they are left as they are */
  int32_t seen_count, bias_count, banned_count, allowed_words, top_count;
  const int32_t *seen;          /* [seen_count] distinct tokens of prompt and answer */
  const int32_t *seen_times;    /* [seen_count] how often each is in the answer */
  const int32_t *bias_tokens;   /* [bias_count] */
  const float *bias;
  const int32_t *banned;        /* [banned_count] tokens that may not be drawn */
  const uint32_t *allowed;      /* [allowed_words] bit i % 32 of word i / 32: token i may be drawn; null: all may */
  /* Results. */
  int32_t *top_tokens;          /* [top_count] the most probable tokens, best first, equal logits by rising token */
  double *top_logprobs;
  double logprob;               /* of token */
  int32_t top_found;            /* fewer than top_count where fewer logits are numbers */
  int32_t token;                /* -1: none of the logits that are left is a number */
} rl_draw;

/* The rows of one step. Row r is token tokens[r] at position positions[r] of sequence sequences[r]; rows of a sequence are
 * in rising order of position, and it sees positions 0 .. positions[r], or the last of them where a pool has a window.
 * block_tables[p][s][i] is the page in pool p of tokens i*page_tokens .. of sequence s; entries past a sequence's last
 * position are not read, nor those wholly before the window of its first row. At most max_rows sequences.
 * logit_rows name the rows whose logits are wanted, in order; RL_GATHER and on_logits operations work on those. Either the
 * logits go to `logits`; or there are draws, one for each of these rows, for a run that ends with the last operation: the
 * logits are then in the step's own memory, and drawn from there. */
typedef struct rl_batch {
  int32_t rows;
  int32_t sequences_count;
  int32_t table_width;          /* pages per block table row */
  int32_t logit_count;
  const int32_t *tokens;
  const int32_t *positions;
  const int32_t *sequences;
  const int32_t *block_tables;  /* [pools][sequences_count][table_width] */
  const int32_t *logit_rows;
  float *logits;                /* [logit_count][vocab], or null */
  rl_draw *const *draws;        /* [logit_count], or null */
} rl_batch;

/* What all steps share: the lists and the cache. And what runs one step at a time: memory and threads. */
typedef struct rl_program rl_program;
typedef struct rl_step rl_step;

/* Bytes of address space, committed when it is first touched. */
typedef struct rl_memory {
  int64_t arena;  /* of a step: buffers, angles, logits, and what each thread keeps for itself */
  int64_t tables; /* of the program */
  int64_t cache;  /* of the program: the KV pools */
} rl_memory;

RL_API int32_t rl_abi(void);
RL_API const char *rl_error(void);  /* of this thread's last failure */
RL_API const char *rl_kernel_name(int32_t kernel);
/* From now on a bus error at the `bytes` from `begin` on (a mapped file that was cut short) writes `sentence` to stderr and
 * ends the process with `exit_code`; with 0 `bytes` that mapping's no longer do. Of up to 64 mappings; one call at a time. */
RL_API void rl_explain_bus_errors(const void *begin, int64_t bytes, const char *sentence, int32_t exit_code);

/* Copies ops, bands, buffers, pools; keeps the pointers inside them. kernel RL_KERNEL_AUTO takes the best supported, by a trial. The cache
 * takes memory only if an operation uses it; then a row of K or V is head_dim rounded up to 32 bytes, plus its scale. */
RL_API rl_program *rl_program_create(const rl_op *ops, int32_t n_ops, const rl_band *bands, int32_t n_bands,
                                     const rl_buffer *buffers, int32_t n_buffers, const rl_shape *shape, int32_t kernel);
/* Its steps may go on, and are destroyed by themselves. */
RL_API void rl_program_destroy(rl_program *program);
RL_API int32_t rl_program_kernel(const rl_program *program);
/* What a program of these sizes and one step of all its rows would take; checks them as rl_program_create and
 * rl_step_create do, and takes nothing. */
RL_API int32_t rl_program_plan(const rl_op *ops, int32_t n_ops, const rl_band *bands, int32_t n_bands,
                               const rl_buffer *buffers, int32_t n_buffers, const rl_shape *shape, int32_t threads,
                               rl_memory *memory);
/* Steps of up to max_rows rows, logit_rows of them with draws, neither more than the program's shape has. Two steps may run at
 * once; pages that one of them writes may not be read by the other meanwhile. */
RL_API rl_step *rl_step_create(rl_program *program, int32_t max_rows, int32_t logit_rows, int32_t threads);
RL_API void rl_step_destroy(rl_step *step);
/* What the program has taken (arena: 0), or a step (only arena). */
RL_API int32_t rl_program_memory(const rl_program *program, rl_memory *memory);
RL_API int32_t rl_step_memory(const rl_step *step, rl_memory *memory);

/* Runs operations first .. last-1 (last -1: to the end). Arguments are checked; nothing is written on failure. One batch at a
 * time: a second call meanwhile is refused. */
RL_API int32_t rl_step_run(rl_step *step, const rl_batch *batch, int32_t first, int32_t last);
/* From the next run on, so many of the step's threads work, 1 to those it was made with; the others sleep. Changes no result.
 * Not while it runs. */
RL_API int32_t rl_step_use_threads(rl_step *step, int32_t threads);
/* From the next run on, adds the nanoseconds of every operation (hand-over to the threads included) to times [n_ops]; null
 * stops it. */
RL_API int32_t rl_step_times(rl_step *step, int64_t *times);
/* A stream: the weights of a program's linears in pieces that are read from a file while a step runs. Everything is aligned
 * to 4096 bytes in the file and in memory, so that reads may be direct ones. There is a piece for each RL_LINEAR, in order;
 * the bands of RL_EMBED stay in the file, and each token reads its strip. */
typedef struct rl_segment {
  int64_t file, place, bytes; /* in the file, in the memory of the piece; the last may end beyond the file */
} rl_segment;
typedef struct rl_piece {
  int64_t bytes;    /* of its memory */
  int64_t resident; /* where it stays in the resident memory once it was read; -1: it passes through the ring */
  int32_t op;
  int32_t first_segment, segments;
} rl_piece;
/* Where the codes and index of a band begin: in its piece, of an embedding in the file. */
typedef struct rl_placed {
  int64_t codes, index;
} rl_placed;
/* `read` (null: pread of `file`) gives the bytes that it read, 0 at the end of the file, or a negative errno; several threads
 * call it at once. forgets 1: the page cache forgets what was read, for reads that are not direct. */
typedef struct rl_reader {
  int64_t (*read)(void *context, uint8_t *to, int64_t bytes, int64_t offset);
  void *context;
  int64_t file_bytes;
  int64_t request_bytes; /* of a read at most */
  int32_t file;
  int32_t forgets;
  int32_t threads;
} rl_reader;
typedef struct rl_stream_plan {
  const rl_piece *piece;
  const rl_segment *segment;
  const rl_placed *placed; /* of every band of the program */
  int32_t pieces, segments, bands;
  int32_t gather_threads;  /* of the step that uses it, at least */
  int64_t ring_bytes, resident_bytes;
  rl_reader reader;
} rl_stream_plan;
enum { RL_CUT_SHORT = -1 };
typedef struct rl_stream_stats {
  int64_t bytes;          /* that passed through the ring */
  int64_t resident_bytes; /* read to stay */
  int64_t gathered_bytes; /* rows of the embedding */
  int64_t waited_ns;      /* steps waited for the file so long */
  int32_t failure;        /* of the last read, if the next step has not begun: an errno, or RL_CUT_SHORT */
  int32_t unused;
} rl_stream_stats;
typedef struct rl_stream rl_stream;
/* Copies the plan; the file stays the caller's, and must be open until the stream is destroyed. */
RL_API rl_stream *rl_stream_create(rl_program *program, const rl_stream_plan *plan);
/* Not before the step that uses it. */
RL_API void rl_stream_destroy(rl_stream *stream);
RL_API int32_t rl_stream_get_stats(rl_stream *stream, rl_stream_stats *stats);
/* From now on the step's weights come from the stream, which no other step may use. Its runs then also give RL_FILE_FAILED:
 * the weights could not be read, and nothing came of the run; the next one tries again. */
enum { RL_FILE_FAILED = -2 };
RL_API int32_t rl_step_use_stream(rl_step *step, rl_stream *stream);
RL_API void *rl_step_buffer(rl_step *step, int32_t buffer);  /* for tests and taps */
/* Copy on write, all layers of the pool. */
RL_API int32_t rl_copy_page(rl_program *program, int32_t pool, int32_t from, int32_t to);
/* Bytes of a page of the pool, all its layers; negative on failure. And a page copied to or from memory of so many bytes,
 * which are the same whatever the kernel. */
RL_API int64_t rl_page_bytes(const rl_program *program, int32_t pool);
RL_API int32_t rl_read_page(const rl_program *program, int32_t pool, int32_t page, uint8_t *out);
RL_API int32_t rl_write_page(rl_program *program, int32_t pool, int32_t page, const uint8_t *data);

/* Bytes per second at which `threads` threads together read `bytes` of memory of their own, the best of `repeats` passes:
 * plain vector loads, in pages of the usual size or (huge 1) as large as the system gives. Negative on failure. */
RL_API double rl_read_bandwidth(int64_t bytes, int32_t threads, int32_t repeats, int32_t huge);

/* Converting a checkpoint. Both work on rows [rows][width] of floats and on the calling thread alone.
 * rl_turn_rows: in place, signs [width] (null: none), a normalised Hadamard transform of every `block` neighbours, a power
 * of two that divides width, and then y[i] = sum_j x[j] mix[j][i] over blocks (null: none). */
RL_API int32_t rl_turn_rows(float *x, int32_t rows, int32_t width, int32_t block, const float *signs, const float *mix,
                            int32_t kernel);
/* rl_round_rows: codes [rows][width], index [rows][ceil(width / 16)] and scale [rows] of sixteen tables. For each cell of a
 * quarter unit from -128 up, errors [1024][16]; for each half unit, the nearest code [16][512]; entries [16][16]; the
 * shares of the usual row scale that are tried [shares]. */
typedef struct rl_round_tables {
  const float *errors;
  const uint8_t *nearest;
  const int8_t *entries;
  const float *share;
  int32_t shares;
} rl_round_tables;
RL_API int32_t rl_round_rows(const float *w, int32_t rows, int32_t width, const rl_round_tables *tables, uint8_t *codes,
                             uint8_t *index, float *scale, int32_t kernel);

#ifdef __cplusplus
}
#endif
#endif
