"""Tiny random backbones of KerasHub, and tokenizers that fit them."""

import numpy as np
from marian_folders import train_spm

SIZES = {
    "vocabulary_size": 24,
    "num_layers": 2,
    "num_heads": 3,
    "hidden_dim": 12,
    "intermediate_dim": 17,
    "max_sequence_length": 11,
}
IMAGE = {"image_shape": (6, 4, 3), "patch_size": 2, "mlp_dim": 17}
IMAGE |= {name: SIZES[name] for name in ("num_layers", "num_heads", "hidden_dim")}
PIECES = "a Ġ q u i c k f o x ui ck uick quick Ġquick Ġq Ġf ox Ġfox".split()
MERGES = ["u i", "c k", "ui ck", "q uick", "Ġ quick", "Ġ f", "o x", "Ġf ox"]
SPECIAL = {
    "Roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    "Bart": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    "GPT2": ["<|endoftext|>"],
}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "qu", "##ick", "fox", "films", "good"]


def backbone(family, **options):
    """A backbone of KerasHub whose weights are all random: biases and norms too."""
    import keras_hub

    sizes = IMAGE if family == "ViT" else SIZES
    made = getattr(keras_hub.models, f"{family}Backbone")(**{**sizes, **options})
    rng = np.random.default_rng(5)
    for weight in made.weights:
        centre = float(weight.path.endswith("gamma"))
        weight.assign(rng.normal(centre, 0.5, weight.shape))
    return made


def tokenizer(family, **options):
    """A tokenizer of KerasHub with a vocabulary of at most 24 tokens."""
    import keras_hub

    if family == "XLMRoberta":
        return keras_hub.models.XLMRobertaTokenizer(train_spm(["a quick fox"], "char", 60))
    if family == "Bert":
        return keras_hub.models.BertTokenizer(vocabulary=WORDS, **options)
    ids = {piece: id for id, piece in enumerate([*SPECIAL[family], *PIECES])}
    kind = getattr(keras_hub.models, f"{family}Tokenizer")
    return kind(vocabulary=ids, merges=MERGES, **options)
