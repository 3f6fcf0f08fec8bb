// A block of few rows on packed weights: all that it does before its attention, and all that it does afterwards.
//
// The formulas are those of model_impl/block.py, where the PyTorch form stands; model_impl/packed_block.py calls these.
// Whatever that form writes down in bfloat16 is rounded to it here as well.

#include "packed_kernel.h"

typedef struct {
    const char *weight, *bias;  // [width]; null where there are none
    double eps;
} norm;

typedef struct {
    int64_t width, head_dim, rotary_dim, bfloat16;
    norm before, between;
    const packed_module *query_key_value, *output, *ffn;
    const char *rotation;  // [positions, rotary_dim]: cosines, then sines
    char *normed, *made;  // room for [rows, width] each
} block;

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

// Halves of a head's first rotary_dim numbers are rotated against each other.
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

FOR_EVERY_CPU static void norm_row(const block *own, const norm *how, const char *x, char *out) {
#define CALL(bfloat16) layer_norm(how, x, out, own->width, bfloat16)
    IN_BOTH_TYPES(CALL);
#undef CALL
}

FOR_EVERY_CPU static void add_rows(const block *own, const char *x, const char *y, char *out) {
#define CALL(bfloat16) add(x, y, out, own->width, bfloat16)
    IN_BOTH_TYPES(CALL);
#undef CALL
}

FOR_EVERY_CPU static void rotate_row(const block *own, char *row, int64_t position) {
#define CALL(bfloat16) rotate(own, row, position, bfloat16)
    IN_BOTH_TYPES(CALL);
#undef CALL
}

// x [rows, width] at positions [rows] -> out [3, rows, width]: query and key, rotated, and value. The rest as for
// `row_operation`.
void block_before_attention(const block *own, int64_t rows, const char *x, const int64_t *positions, char *out,
                            const float *tau, int64_t tau_stride, const float *coupling, int64_t coupling_stride,
                            int64_t report, double *sums, int64_t sums_stride) {
    step now = {NULL, NULL, tau, coupling, tau_stride, coupling_stride, report, sums, sums_stride};
    int64_t bytes = own->width * (own->bfloat16 ? 2 : 4);
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row++) norm_row(own, &own->before, x + row * bytes, own->normed + row * bytes);
        pattention_of_rows(own->query_key_value, rows, own->normed, out, now);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < 2 * rows; i++) rotate_row(own, out + i * bytes, positions[i % rows]);
    }
}

// x [rows, width], and what attention made of it, mixed [rows, width] -> out [rows, width]. The rest is twice that of
// `row_operation`, for the output projection and for the feed-forward.
void block_after_attention(const block *own, int64_t rows, const char *x, const char *mixed, char *out,
                           const float *tau, int64_t tau_stride, const float *coupling, int64_t coupling_stride,
                           int64_t report, double *sums, int64_t sums_stride, const float *ffn_tau,
                           int64_t ffn_tau_stride, const float *ffn_coupling, int64_t ffn_coupling_stride,
                           int64_t ffn_report, double *ffn_sums, int64_t ffn_sums_stride) {
    step now = {NULL, NULL, tau, coupling, tau_stride, coupling_stride, report, sums, sums_stride};
    step ffn = {NULL,           NULL,     ffn_tau, ffn_coupling, ffn_tau_stride, ffn_coupling_stride, ffn_report, ffn_sums,
                ffn_sums_stride};
    int64_t bytes = own->width * (own->bfloat16 ? 2 : 4);
#pragma omp parallel
    {
        pattention_of_rows(own->output, rows, mixed, own->made, now);
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row++) {
            add_rows(own, x + row * bytes, own->made + row * bytes, out + row * bytes);
            norm_row(own, &own->between, out + row * bytes, own->normed + row * bytes);
        }
        pattention_of_rows(own->ffn, rows, own->normed, own->made, ffn);
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row++)
            add_rows(own, out + row * bytes, own->made + row * bytes, out + row * bytes);
    }
}
