"""What the models have in common: methods that wire a functional Keras model."""

import keras
from keras.dtype_policies import DTypePolicyMap

from keras_transformer.layers.encoder import Encoder
from keras_transformer.layers.positional_embedding import PositionalEmbedding
from keras_transformer.layers.quantization import quantized_dtype
from keras_transformer.models.loss_per_label import LossPerLabel


class FunctionalModel(LossPerLabel, keras.Model):
    """A functional `keras.Model` whose graph is made by the methods of the object itself.

    `make_layers` makes the layers, which become attributes, and `wire` connects them. A subclass
    that overrides `encode`, `decode` or another method that `wire` calls trains, saves, loads and
    translates with its own.

    Args:
        inputs: A `keras.Input`, or a dictionary of them: what `wire` is given.
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

    def __init__(self, inputs, sizes, dtype=None, name=None, trainable=True):
        policy = keras.dtype_policies.get(dtype)
        layers = self.make_layers(policy, **sizes)
        # Keras tracks attributes only after `super().__init__`, which needs the finished graph. So
        # the layers are plain attributes while it is made.
        vars(self).update(layers)
        try:
            outputs = self.wire(inputs)
        except AttributeError as error:
            error.add_note(
                f"The methods that wire {type(self).__name__} run in its __init__. Let make_layers "
                "return their layers, and set other attributes before super().__init__()."
            )
            raise
        for attribute in layers:
            del vars(self)[attribute]
        super().__init__(inputs=inputs, outputs=outputs, name=name, trainable=trainable)
        for attribute, layer in layers.items():
            setattr(self, attribute, layer)
        self._sizes, self._policy = sizes, policy

    def make_layers(self, dtype, **sizes):
        """Makes the layers of a model of these sizes: {attribute: layer}.

        A subclass adds its own to those of `super().make_layers(dtype, **sizes)`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method make_layers.")

    def wire(self, inputs):
        """From the inputs to the outputs, symbolic or real."""
        raise NotImplementedError(f"{type(self).__name__} has no method wire.")

    def quantize(self, mode=None, config=None, **options):
        """Quantises the `Dense` layers: feed-forward networks, untied logits and classifiers.

        As `keras.Model.quantize`, in the modes `"int8"`, `"int4"` and `"float8"`. Attention,
        embeddings and tied logits keep their weights. A quantised model translates, saves and
        loads.

        Args:
            mode, config, **options: As in `keras.Model.quantize`.

        Raises:
            ValueError: For `"gptq"` and `"awq"` without a `quantization_layer_structure`; then
                nothing is changed.
        """
        structure = getattr(config, "quantization_layer_structure", None)
        if mode in ("gptq", "awq") and structure is None:
            raise ValueError(
                f"quantize({mode!r}) needs to know the blocks of a {type(self).__name__}, which "
                "has no such list. Pass a config with quantization_layer_structure, or quantise by "
                "'int8', 'int4' or 'float8'."
            )
        super().quantize(mode, config, **options)

    def export(
        self, filepath, format="tf_saved_model", verbose=None, input_signature=None, **kwargs
    ):
        """Exports the model alone, from ids to logits, as `keras.Model.export`.

        Args:
            filepath, format, verbose, input_signature, **kwargs: As in `keras.Model.export`.

        Raises:
            ValueError: For `"onnx"` and `"litert"` without an `input_signature` of fixed lengths:
                LiteRT would fail, and ONNX would be a file that cannot be loaded.
        """
        if format in ("onnx", "litert"):
            tensors = keras.tree.flatten(input_signature)
            if any(each is None or None in each.shape for each in tensors):
                raise ValueError(
                    f"format={format!r} takes fixed lengths, got input_signature="
                    f"{input_signature!r}. Pass one keras.InputSpec(shape=(rows, length), "
                    'dtype="int32") for each input, and pad the inputs to these shapes.'
                )
        super().export(
            filepath, format=format, verbose=verbose, input_signature=input_signature, **kwargs
        )

    def get_config(self):
        dtype = self._policy.name
        if isinstance(self._policy, DTypePolicyMap):
            dtype = keras.dtype_policies.serialize(self._policy)
        return {
            **self._sizes,
            "dtype": dtype,
            **quantized_dtype(self, self._policy),
            "name": self.name,
            "trainable": self.trainable,
        }


def embedding_and_stack(
    stack, dtype, vocabulary_size, num_layers, d_ff, positions, max_length, **options
):
    """The layers of a model of one stack, which saved files know by these names.

    Args:
        stack: Name of the `Encoder`: "encoder", or "decoder" where it sees no later position.
        dtype: The dtype policy of all layers.
        vocabulary_size, positions, max_length: Of the embedding.
        num_layers: Of the stack.
        d_ff: Width of the feed-forward networks; 4 D where it is None.
        **options: `d_model`, `num_heads`, `dropout` and further arguments of the layers; by default
            `activation="gelu"`.

    Returns:
        `{"embedding": layer, stack: layer}`.
    """
    d_model = options["d_model"]
    embedding = PositionalEmbedding(
        vocabulary_size,
        d_model,
        positions=positions,
        max_length=max_length,
        dropout=options["dropout"],
        dtype=dtype,
        name="embedding",
    )
    options = {"activation": "gelu", "d_ff": d_ff or 4 * d_model, **options}
    return {"embedding": embedding, stack: Encoder(num_layers, dtype=dtype, name=stack, **options)}
