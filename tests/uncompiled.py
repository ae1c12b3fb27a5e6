"""Short searches and trainings without compilation, where few steps show as much as 50."""

import keras

from keras_transformer.callbacks import Probes
from keras_transformer.decoding.id_translator import IdTranslator

TOKENS = 5  # of the longest translation, its end included


def search_briefly(patch):
    """Makes every `Translator` search for few tokens, and TensorBoard draw no attention.

    Pictures of attention are most of the time of a training with 6 updates.
    tests/test_tensorboard.py has them.
    """
    longest_target = IdTranslator._longest_target

    def few(translator, source_length):
        return min(longest_target(translator, source_length), TOKENS)

    patch.setattr(IdTranslator, "_longest_target", few)
    patch.setattr(Probes, "draw", lambda probes, events, model, update: None)


def search_uncompiled(patch):
    """Like `search_briefly`, and searches eagerly.

    On TensorFlow a compiled search takes seconds, and an eager step 0.1 s. What was compiled also
    stays in memory, 80 MiB. JAX compiles every operation of an eager step by itself, so there the
    search is compiled in one piece.
    """
    search_briefly(patch)

    def compile_with_weights(function, *models):
        def eager(*arrays):
            return function(*map(keras.ops.convert_to_tensor, arrays))

        eager.shapes = ()
        return eager

    if keras.backend.backend() != "jax":
        patch.setattr(
            "keras_transformer.decoding.id_translator.compile_with_weights", compile_with_weights
        )


def train_uncompiled(patch):
    """Trains eagerly, but not on JAX. To trace a step takes TensorFlow 1 s and leaves 24 MiB."""
    compile_model = keras.Model.compile

    def compile_eagerly(model, *args, **options):
        compile_model(model, *args, **options | {"run_eagerly": True, "jit_compile": False})

    if keras.backend.backend() != "jax":
        patch.setattr(keras.Model, "compile", compile_eagerly)


def search_in_one_shape(patch):
    """Like `search_briefly`, and compiles once for all sources of up to 64 tokens."""
    search_briefly(patch)
    for name, sizes in (("ROWS", (64,)), ("SOURCE_LENGTHS", (64,)), ("COARSE_LENGTHS", (64,))):
        patch.setattr(f"keras_transformer.decoding.shapes.{name}", sizes)
