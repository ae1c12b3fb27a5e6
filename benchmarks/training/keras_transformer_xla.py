"""This package as in keras_transformer_fit.py, compiled by XLA: each shape of a batch by itself."""

import keras_transformer_fit


def prepare(config):
    return keras_transformer_fit.prepare(config, jit_compile=True)
