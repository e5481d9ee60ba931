/* How exact llama.cpp's products of quantised weights are, beside activations that are rounded to 8 bits
 * in groups of 32 with a scale in f32 (`--dtype blocks`): the root of the mean squared error of 64 x 64
 * products of 4,096 values, of that of the products, against f64 and the values of the blocks.
 *
 *     L=LLAMA_CPP   # its sources, built in build/ without shared libraries
 *     cc -O2 tools/peers/ggml_dot.c -I$L/ggml/include $L/build/ggml/src/libggml-cpu.a \
 *         $L/build/ggml/src/libggml-base.a -lstdc++ -lm -lpthread -fopenmp -o ggml_dot && ./ggml_dot
 */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "ggml-cpu.h"
#include "ggml.h"

enum { K = 4096, N = 64, GROUP = 32 };

static float normal(void) {
    double u = (rand() + 0.5) / (RAND_MAX + 1.0), v = (rand() + 0.5) / (RAND_MAX + 1.0);
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

static void round_in_groups(const float *x, double *out) {
    for (int at = 0; at < K; at += GROUP) {
        double largest = 0;
        for (int i = at; i < at + GROUP; i++) largest = fmax(largest, fabs(x[i]));
        double step = largest / 127;
        for (int i = at; i < at + GROUP; i++) out[i] = step * nearbyint(x[i] / step);
    }
}

static double dot(const double *a, const float *b) {
    double sum = 0;
    for (int i = 0; i < K; i++) sum += a[i] * b[i];
    return sum;
}

static void measure(enum ggml_type type, int has_outliers) {
    static float w[N * K], values[N * K], x[N * K];
    static double exact[K], rounded[K];
    srand(7);
    for (int i = 0; i < N * K; i++) w[i] = 0.02f * normal();
    for (int i = 0; i < N * K; i++) x[i] = normal() * (has_outliers && i % K % 97 == 0 ? 30 : 1);
    size_t row = ggml_row_size(type, K);
    char *blocks = malloc(row * N);
    ggml_quantize_chunk(type, w, blocks, 0, N, K, NULL);
    for (int j = 0; j < N; j++) ggml_get_type_traits(type)->to_float(blocks + j * row, values + j * K, K);
    const struct ggml_type_traits_cpu *cpu = ggml_get_type_traits_cpu(type);
    char *left = malloc(ggml_row_size(cpu->vec_dot_type, K));
    double size = 0, theirs = 0, ours = 0;
    for (int i = 0; i < N; i++) {
        ggml_get_type_traits_cpu(cpu->vec_dot_type)->from_float(x + i * K, left, K);
        for (int at = 0; at < K; at++) exact[at] = x[i * K + at];
        round_in_groups(x + i * K, rounded);
        for (int j = 0; j < N; j++) {
            float product;
            cpu->vec_dot(K, &product, 0, blocks + j * row, 0, left, 0, 1);
            double expected = dot(exact, values + j * K);
            size += expected * expected;
            theirs += pow(product - expected, 2);
            ours += pow(dot(rounded, values + j * K) - expected, 2);
        }
    }
    printf("%-5s %s: llama.cpp (%s) %.3f %%, groups of 32 %.3f %%\n", ggml_type_name(type),
           has_outliers ? "with outliers" : "normal", ggml_type_name(cpu->vec_dot_type),
           100 * sqrt(theirs / size), 100 * sqrt(ours / size));
    free(blocks);
    free(left);
}

int main(void) {
    enum ggml_type types[] = {GGML_TYPE_Q8_0, GGML_TYPE_Q5_0, GGML_TYPE_Q4_0, GGML_TYPE_Q6_K,
                              GGML_TYPE_Q5_K, GGML_TYPE_Q4_K, GGML_TYPE_Q3_K, GGML_TYPE_Q2_K};
    ggml_cpu_init();
    for (int has_outliers = 0; has_outliers < 2; has_outliers++)
        for (size_t i = 0; i < sizeof types / sizeof *types; i++) measure(types[i], has_outliers);
    return 0;
}
