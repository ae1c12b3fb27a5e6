"""Quantised layers in configurations: which `Dense` layers inside a layer were quantised."""

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


def at_path(policy: Any, path: str) -> Any:
    """The policy of the layer at a path."""
    return policy[path] if isinstance(policy, DTypePolicyMap) else policy


def _require_default_quantizer(layer):
    default = keras.quantizers.AbsMaxQuantizer() if layer.quantization_mode == "int8" else None
    quantizer = getattr(layer, "inputs_quantizer", None)
    ours, expected = (each and (type(each), each.get_config()) for each in (quantizer, default))
    if ours != expected:
        raise ValueError(
            f"The layer {layer.path} was quantised to {layer.quantization_mode} with "
            f"activation_quantizer={quantizer}, which is not Keras' default. A file would not hold "
            "it. To save the model, quantise without an activation_quantizer of your own."
        )
