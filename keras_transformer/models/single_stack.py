"""What the models of one stack over token ids share."""

from typing import Any, ClassVar

import keras

from keras_transformer.layers.encoder import Encoder
from keras_transformer.layers.positional_embedding import PositionalEmbedding
from keras_transformer.models.functional import FunctionalModel, arguments_of_model


class SingleStack(FunctionalModel):
    """A model of token ids with one embedding and one stack, and the arguments of both.

    A subclass wires them. For the arguments see `CausalLanguageModel`.
    """

    INPUTS: ClassVar[tuple[str, ...]] = ("token_ids",)
    STACK: ClassVar[str] = "encoder"  # "decoder" if it sees no later position
    BLOCK_OPTIONS: ClassVar[dict[str, Any]] = {}  # defaults that the configuration shows

    def __init__(
        self,
        vocabulary_size: int,
        num_layers: int = 12,
        d_model: int = 768,
        num_heads: int = 12,
        d_ff: int | None = None,
        dropout: float = 0.1,
        *,
        positions: str = "learned",
        max_length: int | None = None,
        logits_bias: bool = False,
        embedding_norm: bool = False,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        **block_options: Any,
    ) -> None:
        arguments = arguments_of_model(locals(), **self.BLOCK_OPTIONS)
        inputs = {each: keras.Input((None,), dtype="int32", name=each) for each in self.INPUTS}
        super().__init__(inputs if len(inputs) > 1 else inputs["token_ids"], **arguments)

    def make_layers(  # type: ignore[override]
        self,
        dtype: Any,
        *,
        vocabulary_size: int,
        num_layers: int,
        d_ff: int | None,
        positions: str,
        max_length: int | None,
        embedding_norm: bool,
        logits_bias: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        """Makes the embedding and the stack, which saved files know by these names."""
        embedding = PositionalEmbedding(
            vocabulary_size,
            options["d_model"],
            positions=positions,
            max_length=max_length,
            dropout=options["dropout"],
            logits_bias=logits_bias,
            embedding_norm=embedding_norm,
            dtype=dtype,
            name="embedding",
            **{name: options[name] for name in ("epsilon",) if name in options},
        )
        options = {"activation": "gelu", "d_ff": d_ff or 4 * options["d_model"], **options}
        stack = Encoder(num_layers, dtype=dtype, name=self.STACK, **options)
        return {"embedding": embedding, self.STACK: stack}
