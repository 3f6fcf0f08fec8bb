// The row operation of a Pattention on CPU: what happens between its two GEMMs, in one pass and without temporaries.
//
// The formulas are those of model_impl/reference/row_operation.py, which is the PyTorch form.
// model_impl/kernels/cpu/rows.py calls this one. Row statistics and activations are float32, whatever the scores are.

#include <float.h>

#include "rows.h"

INLINE void activate(const char *scores, char *weights, int64_t width, float scale, int bfloat16, int gelu_first) {
    if (scale == 0) {  // the row does not use these tokens
        memset(weights, 0, width * (bfloat16 ? 2 : 4));
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < width; i++) {
        float s = load(scores, i, bfloat16);
        store(weights, i, gelu_first ? gelu(s) * scale : gelu(s * scale), bfloat16);
    }
}

INLINE void one_row(const layout *module, const step *now, int64_t row, int bfloat16, int gelu_first) {
    int64_t bytes = bfloat16 ? 2 : 4, count = module->segments;
    const float *tau = now->tau + row * now->tau_stride, *coupling = now->coupling + row * now->coupling_stride;
    double squares[count];
    for (int64_t p = 0; p < module->projections; p++) {
        const segment *own = module->table + p * count;
        for (int64_t s = 0; s < count; s++) {
            const char *scores = now->scores[own[s].scores] + (row * own[s].scores_stride + own[s].first_score) * bytes;
            squares[s] = sum_of_squares(scores, own[s].width, bfloat16, gelu_first);
        }
        for (int64_t s = 0; s < count; s++) {
            double group = 0;
            for (int64_t other = 0; other < count; other++) group += coupling[s * count + other] * squares[other];
            // This form keeps NaN: scores that are no numbers must not look like good ones.
            float scale = tau[p * count + s] / sqrt(group < FLT_MIN ? FLT_MIN : group);
            const char *scores = now->scores[own[s].scores] + (row * own[s].scores_stride + own[s].first_score) * bytes;
            char *weights = now->weights[own[s].weights] + (row * own[s].weights_stride + own[s].first_weight) * bytes;
            activate(scores, weights, own[s].width, scale, bfloat16, gelu_first);
        }
    }
}

static void row_float32(const layout *module, const step *now, int64_t row) {
    module->gelu_first ? one_row(module, now, row, 0, 1) : one_row(module, now, row, 0, 0);
}

static void row_bfloat16(const layout *module, const step *now, int64_t row) {
    module->gelu_first ? one_row(module, now, row, 1, 1) : one_row(module, now, row, 1, 0);
}

void operate_on_row(const layout *module, const step *now, int64_t row) {
    module->bfloat16 ? row_bfloat16(module, now, row) : row_float32(module, now, row);
}

void row_operation(const layout *module, int64_t rows, const char *const *scores, char *const *weights,
                   const float *tau, int64_t tau_stride, const float *coupling, int64_t coupling_stride) {
    step now = {scores, weights, tau, coupling, tau_stride, coupling_stride};
    int64_t elements = 0;
    for (int64_t i = 0; i < module->projections * module->segments; i++) elements += module->table[i].width;
#pragma omp parallel for if (rows > 1 && rows * elements > SERIAL)
    for (int64_t row = 0; row < rows; row++) operate_on_row(module, &now, row);
}
