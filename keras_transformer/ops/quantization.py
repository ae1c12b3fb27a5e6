"""Quantised layers in configurations, and weights as Keras saves them."""

from typing import Any

import keras
from keras.dtype_policies import DTypePolicyMap


def quantized_dtype(layer: keras.Layer, policy: Any = None) -> dict[str, Any]:
    """The entry `{"dtype": ...}` of a layer's configuration that names the quantised layers in it.

    Keras' `quantize` changes the dtype policy of each `Dense` layer. A loaded layer makes its parts
    with its own policy, so that becomes a `DTypePolicyMap` from the paths of the quantised layers.

    Args:
        layer: A layer or a model.
        policy: The policy that its layers were made with; `layer.dtype_policy` unless given.

    Returns:
        The entry, or an empty dictionary if nothing is quantised.

    Raises:
        ValueError: For an `activation_quantizer` that is not Keras' default. A policy does not name
            it, so it would be lost in a file.
    """
    policy = layer.dtype_policy if policy is None else policy
    policies = {}
    for each in layer._flatten_layers():
        if each.quantization_mode is not None:
            _require_default_quantizer(each)
            policies[each.path] = at_path(each.dtype_policy, each.path)
    if not policies:
        return {}
    if isinstance(policy, DTypePolicyMap):
        policy, policies = policy.default_policy, {**policy, **policies}
    return {"dtype": keras.dtype_policies.serialize(DTypePolicyMap(policy, policies))}


def build_embedding(layer: keras.layers.Embedding) -> keras.layers.Embedding:
    """Builds an embedding, quantised if its policy says so, as `quantize` would have left it.

    Keras 3.15 rounds the inputs of the logits in 4 bits if the layer was built with them, but not
    if it was quantised by its model. It also warns of the masks that logits do not need.
    """
    layer.build()
    layer.supports_masking = True
    if layer.quantization_mode == "int4" and hasattr(layer, "inputs_quantizer"):
        layer.inputs_quantizer = None
    return layer


def rebuilt(model: keras.Model) -> keras.Model:
    """A copy, as if the model had been saved and loaded: adapters of LoRA are merged.

    The variables of a quantised model are in another order than those of its copies.
    """
    copy = type(model).from_config(model.get_config())
    for old, new in zip(model._flatten_layers(), copy._flatten_layers(), strict=True):
        store: dict[str, Any] = {}
        old.save_own_variables(store)
        # Arrays of NumPy, because JAX would share its own, and training one model gives them away.
        new.load_own_variables(
            {name: keras.ops.convert_to_numpy(value) for name, value in store.items()}
        )
    return copy


def at_path(policy: Any, path: str) -> Any:
    """The policy of the layer at a path."""
    return policy[path] if isinstance(policy, DTypePolicyMap) else policy


def _require_default_quantizer(layer):
    if not hasattr(layer, "inputs_quantizer"):  # an embedding that is only looked up
        return
    quantizer = layer.inputs_quantizer
    default = keras.quantizers.AbsMaxQuantizer() if layer.quantization_mode == "int8" else None
    ours, expected = (each and (type(each), _settings(each)) for each in (quantizer, default))
    if ours != expected:
        raise ValueError(
            f"The layer {layer.path} was quantised to {layer.quantization_mode} with "
            f"activation_quantizer={quantizer}, which is not Keras' default. A file would not hold "
            "it. To save the model, quantise without an activation_quantizer of your own."
        )


def _settings(quantizer):
    """Its configuration without the axis, which depends on the layer alone."""
    return {name: value for name, value in quantizer.get_config().items() if name != "axis"}
