/* A plugin of qemu-user that counts the guest's instructions, block by block, in phases that the guest marks.
 *
 *   cc -O2 -shared -fPIC count.c -o count.so
 *   qemu-aarch64 -plugin ./count.so,out=COUNTS PROGRAM
 *
 * A guest enters phase N by the system call getpriority(0x726b, N), which fails and does nothing else. COUNTS gets a
 * line "phase N TOTAL" for every phase that ended, and then "ADDRESS INSTRUCTIONS" (address hexadecimal) for every
 * block that ran in it: the instructions executed in the block that starts there. The program starts in phase 0.
 * For one thread: threads would count at the same time, and lose some.
 *
 * The prototypes are those of qemu's plugin interface, version 1, which Debian does not package. */
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int add, void *counter, uint64_t by);
typedef void on_syscall(plugin_id, unsigned vcpu, int64_t number, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                        uint64_t, uint64_t, uint64_t);
extern void qemu_plugin_register_vcpu_syscall_cb(plugin_id, on_syscall *);
extern void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);

enum { ADD_U64 = 0, GETPRIORITY = 141, MARK = 0x726b };

struct block {
  uint64_t address, instructions, reported;
  struct block *next;
};

__attribute__((visibility("default"))) int qemu_plugin_version = 1;
static struct block *blocks;
static FILE *out;
static uint64_t phase;

static void end_phase(void) {
  uint64_t total = 0;
  for (struct block *b = blocks; b != NULL; b = b->next) total += b->instructions - b->reported;
  fprintf(out, "phase %" PRIu64 " %" PRIu64 "\n", phase, total);
  for (struct block *b = blocks; b != NULL; b = b->next) {
    if (b->instructions != b->reported)
      fprintf(out, "%" PRIx64 " %" PRIu64 "\n", b->address, b->instructions - b->reported);
    b->reported = b->instructions;
  }
}

static void translated(plugin_id id, struct qemu_plugin_tb *tb) {
  (void)id;
  struct block *b = calloc(1, sizeof *b);
  if (b == NULL) abort();
  b->address = qemu_plugin_tb_vaddr(tb);
  b->next = blocks;
  blocks = b;
  qemu_plugin_register_vcpu_tb_exec_inline(tb, ADD_U64, &b->instructions, qemu_plugin_tb_n_insns(tb));
}

static void called(plugin_id id, unsigned vcpu, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                   uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
  (void)id, (void)vcpu, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
  if (number != GETPRIORITY || a != MARK) return;
  end_phase();
  phase = b;
}

static void ended(plugin_id id, void *unused) {
  (void)id, (void)unused;
  end_phase();
  fclose(out);
}

__attribute__((visibility("default"))) int qemu_plugin_install(plugin_id id, const void *info, int count,
                                                               char **options) {
  (void)info;
  if (count != 1 || strncmp(options[0], "out=", 4) != 0) {
    fprintf(stderr, "count: give out=FILE and nothing else\n");
    return 1;
  }
  out = fopen(options[0] + 4, "w");
  if (out == NULL) {
    perror(options[0] + 4);
    return 1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_vcpu_syscall_cb(id, called);
  qemu_plugin_register_atexit_cb(id, ended, NULL);
  return 0;
}
