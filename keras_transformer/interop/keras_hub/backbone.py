"""Backbones of KerasHub as models of this package.

Ours multiply embeddings by sqrt(D), theirs do not. So our embedding is theirs divided by sqrt(D).
The logits use the same matrix: the last norm before them is multiplied by sqrt(D).
"""

import math
from collections.abc import Callable

import keras
import numpy as np

from keras_transformer.interop.keras_hub.ids import NONE, START, their_ids
from keras_transformer.interop.keras_hub.weights import Weights
from keras_transformer.models import (
    CausalLanguageModel,
    MaskedLanguageModel,
    TextClassifier,
    Transformer,
    VisionTransformer,
    gelu_tanh,
)

# The bias of logits that theirs do not have, so that they are never emitted. Logits of GPT-2 are
# often below -100. Finite in float16 too.
NEVER = -1e4
ACTIVATIONS = {"gelu": "gelu", "gelu_approximate": keras.activations.serialize(gelu_tanh)}
# In paths of weights: our names -> theirs.
LAYERS = {
    "join_(self|cross)_attention/layer_norm": r"\1_attention_layer_norm",
    "join_feed_forward/layer_norm": "feedforward_layer_norm",
    "feed_forward/inner": "feedforward_intermediate_dense",
    "feed_forward/outer": "feedforward_output_dense",
    "attention/output": "attention/attention_output",
}
BERT = {
    "^embedding/layer_norm": "embeddings_layer_norm",
    "^encoder/layer_": "transformer_layer_",
    **LAYERS,
    "/self_attention/": "/self_attention_layer/",
}
GPT2 = {
    "^embedding/position": "position_embedding",
    "^decoder/layer_": "transformer_layer_",
    **LAYERS,
}
BART = {
    "^source_embedding/layer_norm": "encoder_embeddings_layer_norm",
    "^target_embedding/layer_norm": "decoder_embeddings_layer_norm",
    "^source_embedding/position": "encoder_position_embedding",
    "^target_embedding/position": "decoder_position_embedding",
    "^(encoder|decoder)/layer_": r"transformer_\1_layer_",
    **LAYERS,
    r"(encoder_layer_\d+/self_attention)/": r"\1_layer/",
}
VIT = {
    "^embedding/class/embeddings": "vit_patching_and_embedding/class_token",
    "^embedding/patches": "vit_patching_and_embedding/patch_embedding",
    "^embedding/position": "vit_patching_and_embedding/position_embedding",
    "^encoder/final_norm": "vit_encoder/ln",
    "join_self_attention/layer_norm": "ln_1",
    "join_feed_forward/layer_norm": "ln_2",
    "self_attention/output": "mha/attention_output",
    "self_attention": "mha",
    "feed_forward/inner": "mlp/dense_1",
    "feed_forward/outer": "mlp/dense_2",
}


def load(
    backbone: keras.Model, num_classes: int | None = None, pad_id: int | None = None
) -> keras.Model:
    """Makes a model of this package from a backbone of KerasHub, with its weights.

    ```
    BertBackbone, RobertaBackbone, XLMRobertaBackbone    MaskedLanguageModel, or a TextClassifier
    GPT2Backbone                                         CausalLanguageModel
    BartBackbone                                         Transformer
    ViTBackbone                                          VisionTransformer
    ```

    The outputs are those of the backbone. The logits of GPT-2 and BART are those of KerasHub's
    `GPT2CausalLM` and `BartSeq2SeqLM`. Ids are others, because 0 is padding here: `HubTokenizer`
    gives ours. These points differ:

    - A backbone has no head. The logits of a masked language model mean nothing before training,
      nor do those of a new classifier.
    - All tokens are in BERT's segment 0, and its pooled output is left out.
    - BART's source and target have one embedding matrix. Here they have a copy each, so training
      makes them different.
    - ViT's dropout inside the feed-forward networks is left out.

    Args:
        backbone: The backbone, for example from `keras_hub.models.Backbone.from_preset`.
        num_classes: Number of classes of a new classifier: always for ViT; for BERT and RoBERTa
            to get a `TextClassifier`.
        pad_id: Their id of padding, for BERT and RoBERTa. Unless given, it is 0 for BERT and 1 for
            RoBERTa, as in nearly all presets. It is 1 in those of multilingual-e5, which are BERT
            with the tokenizer of XLM-R.

    Returns:
        The model, with the dtype policy of the backbone.

    Raises:
        ValueError: For another model, a backbone with other weights than it was made with, or an
            argument that its kind of model does not take.

    Example:

    ```python
    import keras_hub

    sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 32}
    backbone = keras_hub.models.BertBackbone(vocabulary_size=100, **sizes)  # or from_preset
    classifier = kt.interop.keras_hub.load(backbone, num_classes=2)
    ```
    """
    name = type(backbone).__name__
    if name not in READERS or not type(backbone).__module__.startswith("keras_hub."):
        raise ValueError(
            f"A {name} cannot be read. Give one of KerasHub's {', '.join(READERS)}. The attribute "
            "backbone of a task, such as a GPT2CausalLM, is one."
        )
    read, takes = READERS[name]
    options = {"num_classes": num_classes, "pad_id": pad_id}
    given = {option: value for option, value in options.items() if value is not None}
    if left := [option for option in given if option not in takes]:
        raise ValueError(f"A {name} takes no {' and no '.join(left)}. Leave it out.")
    return read(backbone, **given)


def _bert(backbone, num_classes=None, pad_id=None):
    ids = their_ids(type(backbone).__name__, backbone.vocabulary_size, pad_id)
    options = {"embedding_norm": True, **_sizes(backbone, "transformer_layer_0")}
    if num_classes is None:
        model = MaskedLanguageModel(len(ids), **options)
    else:
        model = TextClassifier(len(ids), num_classes, **options)
    weights = Weights(backbone, BERT)
    prefix = "" if hasattr(backbone, "segment_embedding") else "embeddings/"  # of RoBERTa
    positions = weights.take(f"{prefix}position_embedding/embeddings")
    if not prefix:
        positions = positions + weights.take("segment_embedding/embeddings")[0]
        for kind in ("kernel", "bias"):
            weights.take(f"pooled_dense/{kind}")
    computed = {
        "embedding/token/embeddings": _table(weights, ids, f"{prefix}token_embedding"),
        "embedding/position/embeddings": positions,
    }
    weights.fill(model, computed, new="classes")
    return model


def _gpt2(backbone):
    ids = their_ids("GPT2Backbone", backbone.vocabulary_size)
    options = _sizes(backbone, "transformer_layer_0")
    model = CausalLanguageModel(len(ids), logits_bias=True, **options)
    weights = Weights(backbone, GPT2)
    computed = {
        "embedding/token/embeddings": _table(weights, ids, "token_embedding"),
        "embedding/bias": np.where(ids == NONE, NEVER, 0),
        **_scaled_norm(weights, backbone, "decoder/final_norm", "layer_norm"),
    }
    weights.fill(model, computed)
    return model


def _bart(backbone):
    ids = their_ids("BartBackbone", backbone.vocabulary_size)
    options = _sizes(backbone, "transformer_encoder_layer_0")
    model = Transformer(
        len(ids),
        # Source and target have different positions and norms there.
        target_vocabulary_size=len(ids),
        logits_bias=True,
        embedding_norm=True,
        **options,
    )
    weights = Weights(backbone, BART)
    last = backbone.num_layers - 1
    table = _table(weights, ids, "token_embedding")
    computed = {
        "source_embedding/token/embeddings": table,
        "target_embedding/token/embeddings": table,
        "target_embedding/bias": np.where(np.arange(len(ids)) == START, NEVER, 0),
        **_scaled_norm(
            weights,
            backbone,
            f"decoder/layer_{last}/join_feed_forward/layer_norm",
            f"transformer_decoder_layer_{last}/feedforward_layer_norm",
        ),
    }
    weights.fill(model, computed)
    return model


def _vit(backbone, num_classes=None):
    if num_classes is None:
        raise ValueError(
            "A ViTBackbone has no classes, and a VisionTransformer classifies. Give num_classes, "
            "the number of classes to learn."
        )
    height, width = backbone.patch_size
    if height != width or backbone.data_format != "channels_last":
        raise ValueError(
            f"The backbone has patch_size={backbone.patch_size} and data_format="
            f"{backbone.data_format!r}. A VisionTransformer has square patches of images with "
            "channels_last. Choose such a preset."
        )
    model = VisionTransformer(
        tuple(backbone.image_shape),
        num_classes,
        height,
        num_layers=backbone.num_layers,
        d_model=backbone.hidden_dim,
        num_heads=backbone.num_heads,
        d_ff=backbone.mlp_dim,
        dropout=backbone.dropout_rate,
        attention_dropout=backbone.attention_dropout,
        pooling="class" if backbone.use_class_token else "mean",
        epsilon=backbone.layer_norm_epsilon,
        use_bias=backbone.use_mha_bias,
        dtype=backbone.dtype_policy,
    )
    numbers = {  # counted from 1 there
        f"^encoder/layer_{i}/": f"vit_encoder/transformer_block_{i + 1}/"
        for i in range(backbone.num_layers)
    }
    Weights(backbone, numbers | VIT).fill(model, {}, new="logits")
    return model


# By the class of the backbone: how it is read, and the arguments of `load` that this takes.
_ENCODER = (_bert, ("num_classes", "pad_id"))
READERS: dict[str, tuple[Callable[..., keras.Model], tuple[str, ...]]] = {
    "BertBackbone": _ENCODER,
    "RobertaBackbone": _ENCODER,
    "XLMRobertaBackbone": _ENCODER,
    "GPT2Backbone": (_gpt2, ()),
    "BartBackbone": (_bart, ()),
    "ViTBackbone": (_vit, ("num_classes",)),
}


def _sizes(backbone, layer):
    """The arguments that the models of text share. `layer` is the name of a layer of theirs."""
    layer = backbone.get_layer(layer)
    return {
        "num_layers": backbone.num_layers,
        "d_model": backbone.hidden_dim,
        "num_heads": backbone.num_heads,
        "d_ff": backbone.intermediate_dim,
        "dropout": backbone.dropout,
        "attention_dropout": backbone.dropout,
        "positions": "learned",
        "max_length": backbone.max_sequence_length,
        "activation": ACTIVATIONS[layer.activation.__name__],
        "epsilon": layer.layer_norm_epsilon,
        "use_bias": True,
        "dtype": backbone.dtype_policy,
    }


def _table(weights, ids, name):
    """Our embedding matrix [V, D]."""
    theirs = weights.take(f"{name}/embeddings")
    return np.where(ids[:, None] == NONE, 0, theirs[ids]) / math.sqrt(theirs.shape[1])


def _scaled_norm(weights, backbone, ours, theirs):
    """The norm before the logits, times sqrt(D), by our paths."""
    return {
        f"{ours}/{part}": weights.take(f"{theirs}/{part}") * math.sqrt(backbone.hidden_dim)
        for part in ("gamma", "beta")
    }
