/* A stand-in for librknnrt: records every call in $STUB_CALLS. The output is each input times two, from the
 * first on, and $STUB_FAULT names the function that fails. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t rknn_context;
typedef struct { uint32_t n_input, n_output; } rknn_input_output_num;
typedef struct { char api_version[256], drv_version[256]; } rknn_sdk_version;
typedef struct {
    uint32_t index; void *buf; uint32_t size; uint8_t pass_through; int type; int fmt;
} rknn_input;
typedef struct { uint8_t want_float, is_prealloc; uint32_t index; void *buf; uint32_t size; } rknn_output;

static rknn_context made;
static float held[1 << 16];
static uint32_t held_bytes;

static int say(const char *name, uint64_t a, uint64_t b) {
    FILE *file = fopen(getenv("STUB_CALLS"), "a");
    fprintf(file, "%s %llu %llu\n", name, (unsigned long long)a, (unsigned long long)b);
    fclose(file);
    const char *fault = getenv("STUB_FAULT");
    return fault && !strcmp(fault, name) ? -6 : 0;
}

int rknn_init(rknn_context *context, void *model, uint32_t size, uint32_t flag, void *extend) {
    (void)model; (void)extend;
    *context = ++made;
    return say("rknn_init", size, flag);
}
int rknn_destroy(rknn_context context) { return say("rknn_destroy", context, 0); }
int rknn_query(rknn_context context, int command, void *info, uint32_t size) {
    if (command == 0 && size == sizeof(rknn_input_output_num)) *(rknn_input_output_num *)info = (rknn_input_output_num){1, 1};
    if (command == 5 && size == sizeof(rknn_sdk_version)) {
        strcpy(((rknn_sdk_version *)info)->api_version, "stub 1");
        strcpy(((rknn_sdk_version *)info)->drv_version, "0.9.8");
    }
    return say("rknn_query", context, (uint64_t)command);
}
int rknn_inputs_set(rknn_context context, uint32_t n, rknn_input inputs[]) {
    (void)context;
    held_bytes = inputs[0].size;
    memcpy(held, inputs[0].buf, held_bytes);
    return say("rknn_inputs_set", n, (uint64_t)(inputs[0].type * 10 + inputs[0].pass_through));
}
int rknn_run(rknn_context context, void *extend) { (void)extend; return say("rknn_run", context, 0); }
int rknn_outputs_get(rknn_context context, uint32_t n, rknn_output outputs[], void *extend) {
    (void)context; (void)extend;
    for (uint32_t i = 0; i < outputs[0].size / 4; i++) {
        ((float *)outputs[0].buf)[i] = 2 * held[i % (held_bytes / 4)];
    }
    return say("rknn_outputs_get", n, (uint64_t)(outputs[0].want_float * 10 + outputs[0].is_prealloc));
}
int rknn_outputs_release(rknn_context context, uint32_t n, rknn_output outputs[]) {
    (void)outputs;
    return say("rknn_outputs_release", context, n);
}
