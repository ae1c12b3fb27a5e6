"""Texts to classes by an encoder, new or pre-trained (Devlin et al., 2018, section 3.2)."""

import keras
from keras.dtype_policies import DTypePolicyMap

from keras_transformer.layers.dropout import Dropout
from keras_transformer.layers.pooling import MeanPooling
from keras_transformer.models.functional import FunctionalModel, embedding_and_stack


@keras.saving.register_keras_serializable(package="keras_transformer")
class TextClassifier(FunctionalModel):
    """The encoder of `MaskedLanguageModel`, the mean of its outputs, and a class for the text.

    ```
    logits = Dropout(mean over real tokens of Encoder(Embedding(token_ids))) W + b
    ```

    `take_encoder` begins with what a `MaskedLanguageModel` has learnt. `classify` is the wiring,
    used on symbolic tensors to build the model and on real ones as it is. A subclass may override
    it: see `models.functional.FunctionalModel`.

    Args:
        vocabulary_size: number of tokens V; id 0 is padding.
        num_classes: number of classes C.
        num_layers: layers L.
        d_model: width D.
        num_heads: attention heads H.
        d_ff: width F of the feed-forward networks; 4 D where not given.
        dropout: on the embeddings, on each sub-layer's output, and on the mean.
        positions: `"learned"`, as in BERT, with `max_length`; or `"sinusoidal"`.
        max_length: number of learned positions.
        **block_options: further arguments of the layers; by default `activation="gelu"`, as in
            BERT.

    Call arguments:
        inputs: integers [B, S].

    Returns:
        logits [B, C], in full precision.

    Raises:
        ValueError: for sizes that do not fit together.

    Example:

    ```python
    sizes = {"num_layers": 4, "d_model": 256, "num_heads": 4, "max_length": 128}
    classifier = TextClassifier(8_000, num_classes=2, **sizes)
    classifier.take_encoder(MaskedLanguageModel(8_000, **sizes))  # a trained one, to be of use
    logits = classifier(np.array([[2, 7, 5, 9, 3]]))  # [1, 2]
    ```
    """

    def __init__(
        self,
        vocabulary_size,
        num_classes,
        num_layers=12,
        d_model=768,
        num_heads=12,
        d_ff=None,
        dropout=0.1,
        *,
        positions="learned",
        max_length=None,
        name=None,
        dtype=None,
        trainable=True,
        **block_options,
    ):
        sizes = {
            "vocabulary_size": vocabulary_size,
            "num_classes": num_classes,
            "num_layers": num_layers,
            "d_model": d_model,
            "num_heads": num_heads,
            "d_ff": d_ff,
            "dropout": dropout,
            "positions": positions,
            "max_length": max_length,
            **block_options,
        }
        token_ids = keras.Input((None,), dtype="int32", name="token_ids")
        super().__init__(token_ids, sizes, dtype=dtype, name=name, trainable=trainable)

    def make_layers(self, dtype, num_classes, **sizes):
        # In full precision: of two classes bfloat16 would often make a tie.
        full = dtype.variable_dtype
        if isinstance(dtype, DTypePolicyMap) and "classes" in dtype:
            full = dtype["classes"]
        return {
            **embedding_and_stack("encoder", dtype, **sizes),
            "pooling": MeanPooling(dtype=dtype, name="pooling"),
            "dropout": Dropout(sizes["dropout"], dtype=dtype, name="dropout"),
            "classes": keras.layers.Dense(num_classes, dtype=full, name="classes"),
        }

    def wire(self, inputs):
        return self.classify(inputs)

    def classify(self, token_ids):
        """Ids [B, S] -> logits [B, C]."""
        x = self.encoder(self.embedding(token_ids))  # [B, S, D]
        return self.classes(self.dropout(self.pooling(x)))

    def take_encoder(self, model):
        """Copies the weights of another model's embedding and encoder; the classes stay untrained.

        Args:
            model: a `MaskedLanguageModel`, or what has an `.embedding` and an `.encoder` of the
                same sizes.

        Raises:
            ValueError: where a size differs; then nothing is copied.
        """
        pairs = []
        for part in ("embedding", "encoder"):
            mine, others = getattr(self, part).weights, getattr(model, part).weights
            shapes = [[tuple(weight.shape) for weight in weights] for weights in (mine, others)]
            if shapes[0] != shapes[1]:
                raise ValueError(
                    f"The {part}s differ in size: weights of {_differing(*shapes)} here and there; "
                    "build both models with the same arguments."
                )
            pairs += zip(mine, others, strict=True)
        for mine, other in pairs:
            mine.assign(other)


def _differing(here, there):
    """The first two shapes that differ, in words; else how many there are."""
    for mine, other in zip(here, there, strict=False):
        if mine != other:
            return f"{mine} and {other}"
    return f"{len(here)} and {len(there)} matrices"
