"""The layers that the models of one stack share."""

from typing import Any

from keras_transformer.layers.encoder import Encoder
from keras_transformer.layers.positional_embedding import PositionalEmbedding


def embedding_and_stack(
    stack: str,
    dtype: Any,
    *,
    vocabulary_size: int,
    num_layers: int,
    d_ff: int | None,
    positions: str,
    max_length: int | None,
    **options: Any,
) -> dict[str, Any]:
    """Makes the layers of a model of one stack, which saved files know by these names.

    Args:
        stack: Name of the `Encoder`: "encoder", or "decoder" if it sees no later position.
        dtype: The dtype policy of all layers.
        vocabulary_size, positions, max_length: Of the embedding.
        num_layers: Of the stack.
        d_ff: Width of the feed-forward networks; 4 D if None.
        **options: `d_model`, `num_heads`, `dropout` and further arguments of the layers.

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
