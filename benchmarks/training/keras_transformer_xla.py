"""This package as in keras_transformer_fit.py, with XLA. It compiles once per batch shape."""

import keras_transformer_fit


def prepare(config):
    return keras_transformer_fit.prepare(config, jit_compile=True)
