"""The base of layers that are made of Keras' own layers."""

import functools
from typing import Any

import keras

from keras_transformer.ops.quantization import quantized_dtype


class Composite(keras.layers.Layer):
    """A layer whose weights belong to Keras layers inside it, so that Keras' services reach them.

    Its configuration names the parts that were quantised. It loads files of version 0.1, in which
    the weights of attention, embeddings and patches belonged to the layer itself.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "build" in cls.__dict__:
            cls.build = _then_frozen(cls.build)

    def quantize(
        self, mode: str | None = None, type_check: bool = True, config: Any = None
    ) -> None:
        """Quantises the `Dense` and `Embedding` layers inside, as `keras.Model.quantize` does.

        Args:
            mode: `"int8"`, `"int4"` or `"float8"`. An `Embedding` has no `"float8"` and stays.
            type_check, config: As in `keras.layers.Layer.quantize`.
        """
        if mode == "int4" and config is None:
            config = keras.quantizers.Int4QuantizationConfig()  # as a model does
        for part in self._flatten_layers(include_self=False):
            kinds = keras.layers.Dense, keras.layers.Embedding
            if isinstance(part, kinds[:1] if mode == "float8" else kinds):
                part.quantize(mode, type_check=type_check, config=config)

    def require_weights(self) -> None:
        """Raises a ValueError before the layer was built."""
        if not self.built:
            raise ValueError(f"{self.name} has no weights yet: call it or its layer first.")

    def load_own_variables(self, store: Any) -> None:
        weights, count = self.weights, len(store.keys())
        if count == len(self._trainable_variables) or count != len(weights):
            return super().load_own_variables(store)
        for index, weight in enumerate(weights):
            weight.assign(store[str(index)])
        # Keras comes to the parts next, for which such a file has nothing.
        for part in self._flatten_layers(include_self=False):
            part.load_own_variables = functools.partial(_load_nothing, part)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **quantized_dtype(self)}


def _then_frozen(build):
    @functools.wraps(build)
    def build_all(self, *args, **kwargs):
        build(self, *args, **kwargs)
        if not self.trainable:  # nor are the parts, which were made since
            for part in self._flatten_layers(include_self=False):
                part.trainable = False

    return build_all


def _load_nothing(layer, store):
    del layer.load_own_variables  # the layer's class has it from now on
