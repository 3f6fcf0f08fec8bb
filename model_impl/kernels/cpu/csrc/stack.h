// A block and a step of all blocks (stack.c).

#ifndef STACK_KERNEL_H
#define STACK_KERNEL_H

#include "packed.h"

typedef struct {
    const char *weight, *bias;  // [width]; null where there are none
    double eps;
} norm;

typedef struct {
    int64_t layer, width, head_dim, rotary_dim, bfloat16;
    norm before, between;
    const packed_module *query_key_value, *output, *ffn;
    const char *rotation;  // [positions, rotary_dim]: cosines, then sines
    char *normed, *made;  // room for [rows, width] each
} block;

// A step for all blocks. Fields without a comment are as in a `step`, for all projections.
typedef struct {
    int64_t rows;
    const int64_t *positions;  // [rows]
    char *x;  // [rows, width]: a block's input, then its output; after the last block, normed by `last`
    char *query_key_value;  // [3, rows, width]: query and key, rotated, and value
    const char *mixed;  // [rows, width]: the result of attention
    const float *tau, *coupling;
    int64_t tau_stride, coupling_stride;
    const norm *last;  // the norm after the last block; null where another rank has the next block
    char *residual;  // room for [rows, width]: the last block's output before `last`
} stack_step;

#endif
