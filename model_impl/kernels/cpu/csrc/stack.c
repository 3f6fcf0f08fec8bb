// Blocks of few rows on packed weights, from one attention to the next.
//
// The formulas are those of model_impl/model/block.py, which is the PyTorch form. model_impl/kernels/cpu/stack.py calls
// these. Values that the PyTorch form stores in bfloat16 are rounded to bfloat16 here as well.

#include "stack.h"

enum { PROJECTIONS = 5, OUTPUT = 3, FFN = 4 };  // model_impl/config.py

INLINE void layer_norm(const norm *own, const char *x, char *out, int64_t width, int bfloat16) {
    float sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; i++) sum += load(x, i, bfloat16);
    float mean = sum / width;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < width; i++) {
        float centred = load(x, i, bfloat16) - mean;
        squares += centred * centred;
    }
    float scale = 1.0f / sqrtf(squares / width + (float)own->eps);
    if (!own->weight) {
#pragma omp simd
        for (int64_t i = 0; i < width; i++) store(out, i, (load(x, i, bfloat16) - mean) * scale, bfloat16);
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < width; i++) {
        float value = (load(x, i, bfloat16) - mean) * scale;
        store(out, i, value * load(own->weight, i, bfloat16) + load(own->bias, i, bfloat16), bfloat16);
    }
}

INLINE void add(const char *x, const char *y, char *out, int64_t width, int bfloat16) {
#pragma omp simd
    for (int64_t i = 0; i < width; i++) store(out, i, load(x, i, bfloat16) + load(y, i, bfloat16), bfloat16);
}

// Rotates the two halves of a head's first rotary_dim numbers against each other.
INLINE void rotate(const block *own, char *row, int64_t position, int bfloat16) {
    int64_t half = own->rotary_dim / 2, bytes = bfloat16 ? 2 : 4;
    const char *rotation = own->rotation + position * own->rotary_dim * bytes;
    for (int64_t start = 0; start < own->width; start += own->head_dim) {
        char *head = row + start * bytes;
#pragma omp simd
        for (int64_t i = 0; i < half; i++) {
            float cosine = load(rotation, i, bfloat16), sine = load(rotation, half + i, bfloat16);
            float first = load(head, i, bfloat16), second = load(head, half + i, bfloat16);
            store(head, i, first * cosine - second * sine, bfloat16);
            store(head, half + i, second * cosine + first * sine, bfloat16);
        }
    }
}

#define IN_BOTH_TYPES(call) (own->bfloat16 ? call(1) : call(0))

static void norm_row(const block *own, const norm *how, const char *x, char *out) {
#define CALL(bfloat16) layer_norm(how, x, out, own->width, bfloat16)
    IN_BOTH_TYPES(CALL);
#undef CALL
}

static void add_rows(const block *own, const char *x, const char *y, char *out) {
#define CALL(bfloat16) add(x, y, out, own->width, bfloat16)
    IN_BOTH_TYPES(CALL);
#undef CALL
}

static void rotate_row(const block *own, char *row, int64_t position) {
#define CALL(bfloat16) rotate(own, row, position, bfloat16)
    IN_BOTH_TYPES(CALL);
#undef CALL
}

// The part of a step that belongs to the module whose projections begin with `first`.
INLINE step of_module(const stack_step *all, const packed_module *module, int64_t first) {
    return (step){NULL, NULL, all->tau + first * module->module->segments, all->coupling, all->tau_stride,
                  all->coupling_stride};
}

// All threads of a parallel region must call both, which end with a barrier.
static void before_attention(const block *own, const stack_step *all) {
    int64_t rows = all->rows, bytes = own->width * (own->bfloat16 ? 2 : 4);
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        norm_row(own, &own->before, all->x + row * bytes, own->normed + row * bytes);
    pattention_of_rows(own->query_key_value, rows, own->normed, all->query_key_value,
                       of_module(all, own->query_key_value, 0));
#pragma omp for schedule(static)
    for (int64_t i = 0; i < 2 * rows; i++) rotate_row(own, all->query_key_value + i * bytes, all->positions[i % rows]);
}

static void after_attention(const block *own, const stack_step *all) {
    int64_t rows = all->rows, bytes = own->width * (own->bfloat16 ? 2 : 4);
    pattention_of_rows(own->output, rows, all->mixed, own->made, of_module(all, own->output, OUTPUT));
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        char *x = all->x + row * bytes;
        add_rows(own, x, own->made + row * bytes, x);
        norm_row(own, &own->between, x, own->normed + row * bytes);
    }
    pattention_of_rows(own->ffn, rows, own->normed, own->made, of_module(all, own->ffn, FFN));
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        char *x = all->x + row * bytes;
        add_rows(own, x, own->made + row * bytes, x);
    }
}

// Runs the first block up to its attention.
void stack_begin(const block *first, const stack_step *all) {
#pragma omp parallel
    before_attention(first, all);
}

// Runs from the attention of a block to that of the next one, or to the end where the next one is null.
void stack_go_on(const block *own, const block *next, const stack_step *all) {
    int64_t bytes = own->width * (own->bfloat16 ? 2 : 4);
#pragma omp parallel
    {
        after_attention(own, all);
        if (next) {
            before_attention(next, all);
        } else if (all->last) {
#pragma omp for schedule(static)
            for (int64_t row = 0; row < all->rows; row++) {
                memcpy(all->residual + row * bytes, all->x + row * bytes, bytes);
                norm_row(own, all->last, all->x + row * bytes, all->x + row * bytes);
            }
        }
    }
}
