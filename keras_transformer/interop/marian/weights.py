"""Makes a `Transformer` of the arrays of a model of Marian.

Marian's sinusoids are in the columns 0 to D/2 - 1 (sine) and D/2 to D - 1 (cosine), ours in even
and odd columns. Adding them is all that tells columns apart. So if all matrices and vectors of
width D change their columns alike, the model computes the same numbers.
"""

import math
from collections.abc import Sequence

import numpy as np

from keras_transformer.decoding import Translator
from keras_transformer.interop.marian.files import Parts
from keras_transformer.interop.marian.vocabulary import Vocabulary, vocabularies
from keras_transformer.models import Transformer

# The bias of what a model of Marian does not have, so that it is never emitted.
NEVER = -100.0
# The length of a table of positions.
LONGEST = 1024


def translator_of(parts: Parts, positions: str) -> Translator:
    """The translator of a model with `"sinusoidal"` or `"learned"` positions; see `load`."""
    source, target = vocabularies(parts)
    arrays = Arrays(parts.arrays, parts.sizes["d_model"], positions)
    shared = "Wemb" in arrays
    tied = not ("decoder_ff_logit_out_W" in arrays or "decoder_ff_logit_out_Wt" in arrays)
    options = dict(parts.sizes)
    if not shared:
        options["target_vocabulary_size"] = target.tokenizer.vocabulary_size
    if positions == "learned":
        options["max_length"] = LONGEST
    model = Transformer(
        source.tokenizer.vocabulary_size,
        tie_logits=tied,
        logits_bias=True,
        use_bias=True,
        positions=positions,
        **options,
    )
    sides = [("Wemb" if shared else "encoder_Wemb", source, model.source_embedding)]
    if not shared:
        sides.append(("decoder_Wemb", target, model.target_embedding))
    for name, vocabulary, embedding in sides:
        embedding.token.embeddings.assign(arrays.table(name, vocabulary))
        if positions == "learned":
            table = _positions(parts.frequencies)
            embedding.position.embeddings.assign(table)
    _fill_logits(model, arrays, target)
    for stack, prefix in ((model.encoder, "encoder"), (model.decoder, "decoder")):
        _fill_stack(stack, arrays, prefix)
    arrays.refuse_left()
    return Translator(model, source.tokenizer, target.tokenizer)


class Arrays:
    """The arrays of a model, of which each is taken once, with its columns in our order.

    Args:
        arrays: By Marian's names.
        d_model: Width D.
        positions: If `"sinusoidal"`, the order of the columns changes.
    """

    def __init__(self, arrays: dict[str, np.ndarray], d_model: int, positions: str) -> None:
        self._arrays = dict(arrays)
        self._order: np.ndarray = np.arange(d_model)
        if positions == "sinusoidal":
            self._order = self._order.reshape(2, -1).T.reshape(-1)  # 0, D/2, 1, D/2 + 1, ...

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def take(self, name: str, shape: Sequence[int], widths: Sequence[int] = ()) -> np.ndarray:
        """The array of this name; the axes `widths` are the model's width D.

        Raises:
            ValueError: If there is none, or it has another shape.
        """
        found = self._arrays.pop(name, None)
        if found is None:
            raise ValueError(
                f"The model lacks the array {name}. Its configuration belongs to another model: "
                "copy the model as a whole."
            )
        if found.size != math.prod(shape) or found.dtype.kind not in "fiu":
            raise ValueError(
                f"The array {name} is {found.dtype} {found.shape}, expected {tuple(shape)} by the "
                "configuration, which belongs to another model: copy the model as a whole."
            )
        found = found.reshape(shape).astype("float32")
        for axis in widths:
            found = np.take(found, self._order, axis)
        return found

    def table(self, name: str, vocabulary: Vocabulary, *, transposed: bool = False) -> np.ndarray:
        """A matrix [V, D] with a row for each id of the new vocabulary."""
        width = len(self._order)
        if transposed:
            found = self.take(name, (width, vocabulary.old_size), (0,)).T
        else:
            found = self.take(name, (vocabulary.old_size, width), (1,))
        return np.where(vocabulary.rows[:, None] >= 0, found[vocabulary.rows], 0)

    def refuse_left(self) -> None:
        """Raises an error if the model has arrays that nothing asked for."""
        if self._arrays:
            names = sorted(self._arrays)
            raise ValueError(
                f"The model has {len(names)} arrays that a Transformer of this package does not "
                f"have: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}."
            )


def _positions(frequencies):
    """Marian's table of sinusoids [positions, D]: all sines, then all cosines."""
    angles = np.arange(LONGEST)[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def _fill_logits(model, arrays, target):
    """The bias of the logits, and their matrix if it is not the embedding."""
    layer = model.target_embedding if model.logits is None else model.logits
    if model.logits is not None:
        name = "decoder_ff_logit_out_W"
        transposed = name in arrays
        table = arrays.table(name if transposed else name + "t", target, transposed=transposed)
        layer.kernel.assign(table.T)
    bias = np.zeros(target.old_size, "float32")
    if "decoder_ff_logit_out_b" in arrays:
        bias = arrays.take("decoder_ff_logit_out_b", (target.old_size,))
    layer.bias.assign(np.where(target.own, bias[target.rows], NEVER))


def _fill_stack(stack, arrays, prefix):
    for number, layer in enumerate(stack.layers, start=1):
        scope = f"{prefix}_l{number}"
        parts = [("self", layer.self_attention, layer.join_self_attention)]
        if prefix == "decoder":
            parts.append(("context", layer.cross_attention, layer.join_cross_attention))
        for name, attention, join in parts:
            for letter, dense in _projections(attention):
                _fill_dense(dense, arrays, f"{scope}_{name}", letter, outwards=letter == "o")
            _fill_norm(join.layer_norm, arrays, f"{scope}_{name}_Wo")
        _fill_dense(layer.feed_forward.inner, arrays, f"{scope}_ffn", "1", outwards=False)
        _fill_dense(layer.feed_forward.outer, arrays, f"{scope}_ffn", "2", outwards=True)
        _fill_norm(layer.join_feed_forward.layer_norm, arrays, f"{scope}_ffn_ffn")
    if stack.final_norm is not None:
        _fill_norm(stack.final_norm, arrays, f"{prefix}_top")


def _projections(attention):
    """Marian's letter and the Dense layer of each projection."""
    yield "q", attention.query
    yield "k", attention.key
    yield "v", attention.value
    yield "o", attention.output_projection


def _fill_dense(dense, arrays, scope, suffix, *, outwards):
    """A matrix and its bias; `outwards` if the output has the width D, otherwise the input has."""
    dense.kernel.assign(arrays.take(f"{scope}_W{suffix}", dense.kernel.shape, [int(outwards)]))
    dense.bias.assign(arrays.take(f"{scope}_b{suffix}", dense.bias.shape, [0] if outwards else []))


def _fill_norm(norm, arrays, name):
    suffix = "_pre" if f"{name}_ln_scale_pre" in arrays else ""  # before the sub-layer
    norm.gamma.assign(arrays.take(f"{name}_ln_scale{suffix}", norm.gamma.shape, [0]))
    norm.beta.assign(arrays.take(f"{name}_ln_bias{suffix}", norm.beta.shape, [0]))
