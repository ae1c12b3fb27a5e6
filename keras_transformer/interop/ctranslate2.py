"""A `Transformer` as a CTranslate2 model: https://opennmt.net/CTranslate2.

CTranslate2 is a C++ engine that translates with Transformers on CPUs and GPUs, also with 8-bit
weights. It needs neither TensorFlow nor this package. Its search differs from ours:

- Its length penalty is `length^alpha`. Alpha 1, its default, is our `"average"`, and 0 our 0. Our
  default, the paper's `((5 + length) / 6)^0.6`, has no equal there. With alpha 0.6 it gave the same
  translation for 197 of 200 sentences.
- A hypothesis at `max_decoding_length` (256 by default, here source + 50) is cut without an end. A
  hypothesis has at least `min_decoding_length` tokens (1 by default, here 0).
- Neither emits padding or the start. CTranslate2 spreads their probability over the other tokens,
  so its scores differ by the little probability that a trained model gives them.
"""

import os
from pathlib import Path

import keras
import numpy as np

from keras_transformer import progress
from keras_transformer.decoding import Translator
from keras_transformer.files import new_folder
from keras_transformer.layers import sinusoids
from keras_transformer.models import Transformer
from keras_transformer.text import Tokenizer

QUANTIZATIONS = (
    "float32",
    "float16",
    "bfloat16",
    "int16",
    "int8",
    "int8_float32",
    "int8_float16",
    "int8_bfloat16",
)
# Our names of activations -> theirs.
ACTIVATIONS = {
    "relu": "RELU",
    "gelu": "GELU",
    "silu": "SWISH",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
}
# CTranslate2 needs a table of sinusoids. It reads 1,024 source tokens by default.
POSITIONS = 2048
# Added to the logits of padding and start, so that they are never emitted. Finite in float16 too.
NEVER = -1e4

README = """\
A model for CTranslate2, exported by keras_transformer. To translate with it:

    import ctranslate2, sentencepiece, unicodedata
    source = sentencepiece.SentencePieceProcessor(model_file="{source}")
    target = sentencepiece.SentencePieceProcessor(model_file="{target}")
    texts = ["A sentence .", "", "Another ."]
    texts = [unicodedata.normalize("NFC", text) if text.strip() else "" for text in texts]
    translator = ctranslate2.Translator(".", device="cpu")  # or "cuda"
    found = translator.translate_batch(source.encode(texts, out_type=str), beam_size=4)
    print([target.decode(each.hypotheses[0]) for each in found])

Pass the pieces alone: start and end tokens are added by the model. An empty list of pieces gives
an empty translation, and blank texts are made empty above. length_penalty=0.6 comes closest to
keras_transformer's default; 1, the default here, is its "average". CTranslate2 ends a beam as soon
as beam_size translations have finished; patience=1.5 waits for half as many again and finds nearly
all that keras_transformer finds.

CTranslate2 cuts without a word: it reads the first 1,024 tokens of a source, the end counted, and
writes at most 256. For longer texts pass max_input_length and max_decoding_length to
translate_batch, up to {longest} each{learned}.
"""


def to_ctranslate2(
    translator: Translator, folder: str | os.PathLike, quantization: str = "float32"
) -> None:
    """Writes a translator as a CTranslate2 model: weights, vocabularies and tokenizers.

    Args:
        translator: A `Translator` of one model, not of an ensemble.
        folder: The folder to make, which must not exist.
        quantization: The type of the weights, one of `QUANTIZATIONS`. `"int8"` takes a quarter of
            the size of `"float32"`, and is faster on most machines.

    Raises:
        ValueError: If CTranslate2 cannot express the model, the quantization is unknown, the folder
            exists, or ctranslate2 is not installed. Nothing is written.

    Example:

    ```python
    translator = kt.load_translator("runs/en-de")
    kt.interop.to_ctranslate2(translator, "exports/en-de", quantization="int8")
    ```
    """
    if quantization not in QUANTIZATIONS:
        raise ValueError(
            f"quantization is one of {', '.join(QUANTIZATIONS)}; got {quantization!r}."
        )
    if len(translator.models) != 1:
        raise ValueError(
            f"A CTranslate2 model holds one model, got an ensemble of {len(translator.models)}: "
            "export one of them, or the ensemble as a SavedModel."
        )
    [model] = translator.models
    for method in ("encode", "decode"):
        if getattr(type(model), method) is not getattr(Transformer, method):
            raise ValueError(
                "CTranslate2 computes encode and decode of a Transformer, and this is a "
                f"{type(model).__name__} with {method} of its own. Export it as a SavedModel."
            )
    if any(layer.quantization_mode is not None for layer in model._flatten_layers()):
        raise ValueError(
            "CTranslate2 quantises by itself and needs the weights that this model had before "
            "quantize. Export the float model with quantization='int8'."
        )
    with new_folder(folder) as folder, progress.work("writing a CTranslate2 model"):
        spec = _spec(model, translator.tokenizer, translator.target_tokenizer)
        spec.validate()
        try:
            spec.optimize(quantization)
        except RuntimeError as error:  # bfloat16, which NumPy lacks
            raise ValueError(f"Cannot write {quantization} weights: {error}.") from error
        spec.save(str(folder))
        names = save_tokenizers(translator.tokenizer, translator.target_tokenizer, folder)
        learned = model.source_embedding.positions == "learned"
        text = README.format(
            source=names[0],
            target=names[-1],
            longest=f"{model.source_embedding.max_length if learned else POSITIONS:,}",
            learned=", the positions that the model has learned; with fewer than\n"
            "1,024 or 256 always pass them"
            if learned
            else "",
        )
        (folder / "README.txt").write_text(text, encoding="utf-8")


def _spec(model, source_tokenizer, target_tokenizer):
    """Returns a `ctranslate2.specs.TransformerSpec` with weights and vocabularies."""
    try:
        from ctranslate2 import specs
    except ImportError as error:
        raise ValueError(
            "Exporting to CTranslate2 needs a package that is not installed: "
            "pip install keras-transformer-kit[ctranslate2]"
        ) from error
    layer = model.encoder.layers[0]
    spec = specs.TransformerSpec.from_config(
        (model.encoder.num_layers, model.decoder.num_layers),
        layer.num_heads,
        pre_norm=layer.norm == "pre",
        activation=getattr(specs.Activation, _activation(layer)),
        layernorm_embedding=model.source_embedding.embedding_norm,
    )
    spec.encoder.embeddings[0].weight = _array(model.source_embedding.token.embeddings)
    spec.decoder.embeddings.weight = _array(model.target_embedding.token.embeddings)
    _stack(spec.encoder, model.encoder, model.source_embedding)
    _stack(spec.decoder, model.decoder, model.target_embedding)
    _logits(spec.decoder.projection, model, target_tokenizer)

    tokenizers = (source_tokenizer, target_tokenizer)
    sizes = (model.source_embedding.vocabulary_size, model.target_embedding.vocabulary_size)
    source, target = map(_vocabulary, tokenizers, sizes)
    spec.register_source_vocabulary(source)
    spec.register_target_vocabulary(target)
    unknown, start, end = _special_pieces(*tokenizers)
    spec.config.unk_token = unknown
    spec.config.bos_token = spec.config.decoder_start_token = start
    spec.config.eos_token = end
    spec.config.add_source_eos = True
    spec.config.layer_norm_epsilon = layer.epsilon
    return spec


def _array(variable):
    # A copy, because CTranslate2 quantizes in place, and this may be the model's own memory.
    return np.array(keras.ops.convert_to_numpy(variable), "float32")


def _activation(layer):
    name = keras.activations.serialize(layer.activation)
    if name not in ACTIVATIONS:
        raise ValueError(
            f"CTranslate2 has no activation {name!r}: a model to export has one of "
            f"{', '.join(ACTIVATIONS)}."
        )
    return ACTIVATIONS[name]


def _stack(spec, stack, embedding):
    """Fills in positions, layers and final norm of the encoder or the decoder."""
    spec.position_encodings.encodings = _positions(embedding)
    if embedding.embedding_norm:
        _norm(spec.layernorm_embedding, embedding.layer_norm)
    if stack.final_norm is not None:
        _norm(spec.layer_norm, stack.final_norm)
    for theirs, ours in zip(spec.layer, stack.layers, strict=True):
        _attention(theirs.self_attention, ours.self_attention, ours.join_self_attention)
        if hasattr(theirs, "attention"):
            _attention(theirs.attention, ours.cross_attention, ours.join_cross_attention)
        _norm(theirs.ffn.layer_norm, ours.join_feed_forward.layer_norm)
        for linear, dense in (
            (theirs.ffn.linear_0, ours.feed_forward.inner),
            (theirs.ffn.linear_1, ours.feed_forward.outer),
        ):
            linear.weight, linear.bias = _array(dense.kernel).T, _array(dense.bias)


def _positions(embedding):
    if embedding.positions == "learned":
        return _array(embedding.position.embeddings)
    if embedding.positions is None:
        return np.zeros((POSITIONS, embedding.d_model), "float32")
    return _array(sinusoids(POSITIONS, embedding.d_model))


def _norm(spec, layer_norm):
    spec.gamma, spec.beta = _array(layer_norm.gamma), _array(layer_norm.beta)


def _attention(spec, layer, join):
    """Fills in one matrix for queries, keys and values, which all have one width there.

    Narrower heads are filled up with zeros, which change no product.
    """
    width = max(layer.key_dim, layer.value_dim)
    spec.queries_scale = layer.key_dim**-0.5
    _norm(spec.layer_norm, join.layer_norm)
    parts = [
        (_heads(part.kernel, layer.num_heads, width), _heads(part.bias, layer.num_heads, width))
        for part in (layer.query, layer.key, layer.value)
    ]
    # In cross-attention queries have a matrix of their own, because only keys and values read the
    # memory.
    groups = [parts] if len(spec.linear) == 2 else [parts[:1], parts[1:]]
    for linear, group in zip(spec.linear, groups, strict=False):
        linear.weight = np.concatenate([kernel for kernel, _ in group], axis=-1).T  # [3 H K, D]
        if layer.use_bias:
            linear.bias = np.concatenate([bias for _, bias in group])
    output = _array(layer.output_projection.kernel).T  # [D, H * V]
    spec.linear[-1].weight = _heads(output, layer.num_heads, width)
    if layer.use_bias:
        spec.linear[-1].bias = _array(layer.output_projection.bias)


def _heads(weights, num_heads, width):
    """[..., H * K] -> [..., H * width], where zeros fill up each head. None if there is no bias."""
    if weights is None:
        return None
    weights = weights if isinstance(weights, np.ndarray) else _array(weights)
    heads = weights.reshape(*weights.shape[:-1], num_heads, -1)  # [..., H, K]
    fill = [(0, 0)] * (heads.ndim - 1) + [(0, width - heads.shape[-1])]
    return np.pad(heads, fill).reshape(*weights.shape[:-1], -1)


def _logits(spec, model, tokenizer):
    tied = model.logits is None
    embeddings = model.target_embedding.token.embeddings
    spec.weight = _array(embeddings) if tied else _array(model.logits.kernel).T  # [V, D]
    bias = model.target_embedding.bias if tied else model.logits.bias
    spec.bias = np.zeros(len(spec.weight), "float32") if bias is None else _array(bias)
    spec.bias[[tokenizer.pad_id, tokenizer.start_id]] = NEVER


def _vocabulary(tokenizer, size):
    """Returns the pieces in the order of their ids. Ids that only the model has get a name too."""
    pieces = [tokenizer.id_to_piece(id) for id in range(tokenizer.vocabulary_size)]
    return pieces + [f"<unused {id}>" for id in range(len(pieces), size)]


def _special_pieces(*tokenizers):
    """Returns the pieces of unknown, start and end, which both vocabularies must share."""
    found = [
        tuple(map(each.id_to_piece, (each.unknown_id, each.start_id, each.end_id)))
        for each in tokenizers
    ]
    if found[0] != found[1]:
        raise ValueError(
            "CTranslate2 needs the same pieces for unknown, start and end in both vocabularies, "
            f"got {found[0]} in the source and {found[1]} in the target."
        )
    return found[0]


def save_tokenizers(source: Tokenizer, target: Tokenizer, folder: Path) -> list[str]:
    """Writes the SentencePiece models as in a run, and returns their names."""
    if source.model_proto == target.model_proto:
        source.save(folder / "tokenizer.model")
        return ["tokenizer.model"]
    source.save(folder / "source.model")
    target.save(folder / "target.model")
    return ["source.model", "target.model"]
