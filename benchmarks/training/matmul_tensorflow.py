"""The machine's matrix-product rate through TensorFlow (oneDNN)."""

import time

import tensorflow as tf


def prepare(config):
    def answer(request):
        best = 0.0
        for size in (1024, 2048):
            a = tf.cast(tf.random.normal((size, size)), config["dtype"])
            product = tf.function(lambda a: tf.matmul(a, a))
            product(a)
            begin, count = time.perf_counter(), 0
            while time.perf_counter() - begin < request["seconds"]:
                product(a)
                count += 1
            best = max(best, 2 * size**3 * count / (time.perf_counter() - begin))
        return {"rate": best}

    return answer, {}
