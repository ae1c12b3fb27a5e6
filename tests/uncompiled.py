"""Short searches without compilation, for tests where a few steps show as much as 50."""

import keras


def search_uncompiled(patch):
    """Makes every `Translator` search eagerly, for at most three tokens more than the source."""

    def compile_with_weights(function, *models):
        def eager(*arrays):
            return function(*map(keras.ops.convert_to_tensor, arrays))

        eager.shapes = ()
        return eager

    patch.setattr("keras_transformer.decoding.translator.Translator.EXTRA_LENGTH", 3)
    patch.setattr(
        "keras_transformer.decoding.id_translator.compile_with_weights", compile_with_weights
    )
