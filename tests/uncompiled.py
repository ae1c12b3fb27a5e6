"""Short searches that are not compiled, where two steps show what 50 compiled ones would."""

import keras


def search_uncompiled(patch):
    """Makes every `Translator` search eagerly, with room for few tokens more than the source."""

    def compile_with_weights(function, *models):
        def eager(*arrays):
            return function(*map(keras.ops.convert_to_tensor, arrays))

        eager.shapes = ()
        return eager

    patch.setattr("keras_transformer.decoding.translator.Translator.EXTRA_LENGTH", 3)
    patch.setattr(
        "keras_transformer.decoding.translator.compile_with_weights", compile_with_weights
    )
