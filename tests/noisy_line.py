"""A user's own plan and model, which train in milliseconds."""

import keras
import numpy as np

import keras_transformer as kt
from keras_transformer.ops.input_pipeline import endless, one_pass


class Lines:
    """A user's own plan: noisy points on a line, a pure function of the update."""

    def __init__(self, accumulate=1):
        self.accumulate = accumulate

    def batch(self, update):
        rng = np.random.default_rng(update)
        x = rng.normal(size=(5, 3)).astype("float32")
        return x, x @ np.array([[1.0], [2.0], [3.0]], "float32")

    def dataset(self, update=0, meter=None):
        return endless(self.batch, update * self.accumulate, meter)

    def evaluation(self):
        return one_pass(lambda index: self.batch(1000 + index), 2)


def build(accumulate=1):
    keras.utils.set_random_seed(7)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dropout(0.3, seed=1)])
    model.add(keras.layers.Dense(1))
    steps = accumulate if accumulate > 1 else None
    optimizer = kt.optimizers.PaperAdam(learning_rate=0.1, gradient_accumulation_steps=steps)
    model.compile(optimizer, "mse")
    return model
