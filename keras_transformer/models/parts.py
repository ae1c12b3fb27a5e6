"""What models of one stack have in common: an embedding, and the layers above it."""

import types

from keras_transformer.layers.encoder import Encoder
from keras_transformer.layers.positional_embedding import PositionalEmbedding


def embedding_and_stack(
    stack, policy, vocabulary_size, num_layers, d_ff, positions, max_length, **options
):
    """The bare layers of a model, which saved files know by these names.

    Args:
        stack: name of the `Encoder`: "encoder", or "decoder" where it sees no later position.
        policy: the dtype policy of all layers.
        vocabulary_size, positions, max_length: of the embedding.
        num_layers: of the stack.
        d_ff: width of the feed-forward networks; 4 D where it is None.
        **options: `d_model`, `num_heads`, `dropout` and further arguments of the layers; by default
            `activation="gelu"`.

    Returns:
        A namespace with `embedding` and, under its own name, the stack.
    """
    d_model = options["d_model"]
    embedding = PositionalEmbedding(
        vocabulary_size,
        d_model,
        positions=positions,
        max_length=max_length,
        dropout=options["dropout"],
        dtype=policy,
        name="embedding",
    )
    options = {"activation": "gelu", "d_ff": d_ff or 4 * d_model, **options}
    layers = Encoder(num_layers, dtype=policy, name=stack, **options)
    return types.SimpleNamespace(**{"embedding": embedding, stack: layers})
