"""What the models have in common: their own methods wire them as functional Keras models."""

from collections.abc import Mapping
from typing import Any

import keras
from keras.dtype_policies import DTypePolicyMap

from keras_transformer.models.services import Services
from keras_transformer.ops.quantization import quantized_dtype


class FunctionalModel(Services):
    """A functional `keras.Model` whose graph is made by the methods of the object itself.

    `make_layers` makes the layers, which become attributes, and `wire` connects them. A subclass
    that overrides `encode`, `decode` or another method that `wire` calls trains, saves, loads and
    translates with its own.

    Args:
        inputs: A `keras.Input`, or a dictionary of them, for `wire`.
        sizes: The arguments of `make_layers`, which `get_config` returns.
        dtype: The dtype policy of the layers.
        name, trainable: As in `keras.Model`.

    Example:

    ```python
    @keras.saving.register_keras_serializable(package="mine")
    class Gated(kt.models.Transformer):
        def make_layers(self, dtype, **sizes):
            gate = keras.layers.Dense(sizes["d_model"], activation="sigmoid", name="gate")
            return {**super().make_layers(dtype, **sizes), "gate": gate}

        def encode(self, source_ids):
            memory, mask = super().encode(source_ids)
            return memory * self.gate(memory), mask
    ```
    """

    def __init__(
        self,
        inputs: Any,
        sizes: Mapping[str, Any],
        dtype: Any = None,
        name: str | None = None,
        trainable: bool = True,
    ) -> None:
        policy = keras.dtype_policies.get(dtype)
        layers = self.make_layers(policy, **sizes)
        # Keras tracks attributes only after `super().__init__`, which needs the finished graph. So
        # the layers are untracked attributes while it is made.
        self.__dict__.update(layers)
        try:
            outputs = self.wire(inputs)
        except AttributeError as error:
            error.add_note(
                f"The methods that wire {type(self).__name__} run in its __init__. Let make_layers "
                "return their layers, and set other attributes before super().__init__()."
            )
            raise
        for attribute in layers:
            del self.__dict__[attribute]
        super().__init__(inputs=inputs, outputs=outputs, name=name, trainable=trainable)
        for attribute, layer in layers.items():
            setattr(self, attribute, layer)
        self._sizes, self._policy = sizes, policy

    def make_layers(self, dtype: Any, **sizes: Any) -> dict[str, Any]:
        """Makes the layers of a model of these sizes: {attribute: layer}.

        A subclass adds its own to those of `super().make_layers(dtype, **sizes)`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method make_layers.")

    def wire(self, inputs: Any) -> Any:
        """From the inputs to the outputs, symbolic or real."""
        raise NotImplementedError(f"{type(self).__name__} has no method wire.")

    def get_config(self) -> dict[str, Any]:
        dtype = self._policy.name
        if isinstance(self._policy, DTypePolicyMap):
            dtype = keras.dtype_policies.serialize(self._policy)
        return {
            **self._sizes,
            "dtype": dtype,
            **self.frozen_parts(),
            **quantized_dtype(self, self._policy),
            "name": self.name,
            "trainable": self.trainable,
        }


def arguments_of_model(arguments: Mapping[str, Any], **defaults: Any) -> dict[str, Any]:
    """The arguments of `FunctionalModel` from the `locals()` of a subclass's `__init__`.

    Args:
        arguments: Its arguments, of which `block_options` are the further ones of the layers.
        **defaults: Defaults of `block_options`.
    """
    ours = ("name", "dtype", "trainable")
    others = ("self", "__class__", "block_options", *ours)
    sizes = {name: value for name, value in arguments.items() if name not in others}
    sizes |= {**defaults, **arguments["block_options"]}
    return {"sizes": sizes, **{name: arguments[name] for name in ours}}
