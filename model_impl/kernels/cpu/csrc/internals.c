// Statistics of a step's Pattentions from its sums, in one pass (model_impl/kernels/collector.py `Collector.columns`).
//
// The formulas are those of model_impl/reference/internals.py `internals_from_sums`, where the PyTorch form stands.

#include "internals.h"

// The four statistics of one Pattention from ||x||^2, its tokens and the sums over all of them.
static void statistics(double x_square, double count, const double *sums, float *out) {
    double mean = sums[1] / count, second = sums[2] / count, third = sums[3] / count, fourth = sums[4] / count;
    double square = mean * mean, variance = second - square;
    double central = fourth - 4 * mean * third + 6 * square * second - 3 * square * square;
    out[0] = (log(sums[0]) - log(x_square)) / 2;
    out[1] = central / (variance * variance);
    out[2] = second * second / fourth;
    out[3] = sums[5] / count;
}

// sums [rows, pattentions, segments, ROW_SUMS], x_squares [rows, pattentions] and, as for `row_operation`, tau
// -> out [rows, places + pattentions * (4 + places)]: contributions by place, then each Pattention's statistics and
// contributions.
void internals_columns(const reported *of, int64_t rows, const double *sums, const double *x_squares, const float *tau,
                       int64_t tau_stride, float *out) {
    for (int64_t row = 0; row < rows; row++) {
        double totals[of->places];
        memset(totals, 0, sizeof(totals));
        float *own = out + of->places;
        for (int64_t i = 0; i < of->pattentions; i++, own += 4 + of->places, sums += of->segments * ROW_SUMS) {
            int64_t first = i % of->projections * of->segments;
            double all[ROW_SUMS] = {0}, count = 0, places[of->places];
            memset(places, 0, sizeof(places));
            for (int64_t s = 0; s < of->segments; s++) {
                const double *part = sums + s * ROW_SUMS;
                places[s < of->stages ? s : of->stages] += part[ROW_SUMS - 1];
                // Weights of segments that a row leaves out are 0; their scores are not.
                if (!(tau[row * tau_stride + first + s] > 0)) continue;
                count += of->counts[first + s];
                for (int j = 0; j < ROW_SUMS; j++) all[j] += part[j];
            }
            statistics(*x_squares++, count, all, own);
            for (int64_t place = 0; place < of->places; place++) {
                own[4 + place] = places[place];
                totals[place] += places[place];
            }
        }
        for (int64_t place = 0; place < of->places; place++) out[place] = totals[place];
        out = own;
    }
}
