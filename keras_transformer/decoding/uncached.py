"""Any model from source and target ids to logits, with the methods that a search calls."""

import bisect
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_transformer import progress
from keras_transformer.ops import Tensor
from keras_transformer.ops.capabilities import used_missing_rows

METHODS = ("encode", "start_cache", "decode", "source_embedding", "target_embedding")
NAMES = ("source_ids", "target_ids")
# To find how many positions a model has, it is tried with up to this many tokens.
MOST = 512
EXPECTED = (
    'A Translator takes a Keras model from {"source_ids": [B, S], "target_ids": [B, T]}, or from '
    "two such inputs in that order, to logits [B, T, V]"
)


def searchable(model: Any) -> Any:
    """Returns `model` itself if it has the methods that a search calls, or an `Uncached` around it.

    Raises:
        ValueError: If it is no Keras model either.
    """
    missing = [method for method in METHODS if not hasattr(model, method)]
    if not missing:
        return model
    if not isinstance(model, keras.layers.Layer):
        raise ValueError(
            f"{EXPECTED}, or a model with {', '.join(METHODS)}. Got a {type(model).__name__} "
            f"without {', '.join(missing)}."
        )
    return Uncached(model)


class Side(NamedTuple):
    """The sizes that a search asks an embedding for. None: not known, or without a limit."""

    vocabulary_size: int | None
    max_length: int | None


class Uncached:
    """A model that computes the whole target again for each token. It warns of that once.

    Its "cache" is what the model reads: the source, and the target so far.

    Args:
        model: A Keras model from two inputs, source and target ids, to logits. Padding is 0, which
            the model masks by itself.

    Raises:
        ValueError: If the model has other inputs or outputs.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self._widths = (None, None)
        self._pack = self._packing()
        size = self._check_logits()
        unlimited = self._widths == (None, None) and self._takes(MOST, MOST)
        limits = (None, None) if unlimited else [self._most(side) for side in (0, 1)]
        self.source_embedding = Side(None, limits[0])
        self.target_embedding = Side(size, limits[1])
        progress.say(
            f"warning: {type(model).__name__} {model.name!r} has no cache (methods "
            f"{', '.join(METHODS[:3])}), so that each token is computed from the whole sentence: "
            "translating is slow."
        )

    @property
    def variables(self) -> list[Any]:
        return self.model.variables

    @property
    def weights(self) -> list[Any]:
        return self.model.weights

    def encode(self, source_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Source ids [B, S] -> the same ids, and their mask [B, S], True = real token."""
        return source_ids, ops.not_equal(source_ids, 0)

    def start_cache(self, memory: Tensor, length: int, beam_size: int = 1) -> dict[str, Any]:
        """Returns the source of each hypothesis, and room for `length` target ids."""
        sources = ops.repeat(memory, beam_size, axis=0)  # [R, S]
        targets = ops.zeros((ops.shape(sources)[0], length), dtype="int32")
        return {"self": [sources, targets]}

    def decode(
        self,
        target_ids: Tensor,
        memory: Tensor,
        memory_mask: Tensor,
        cache: Any = None,
        index: Tensor = 0,
    ) -> Any:
        """Target ids [B, T] -> logits [B, T, V]; with a cache only of the newest ids [R, 1]."""
        if cache is None:
            return self._logits(memory, target_ids)
        sources, targets = cache["self"]
        places = ops.arange(ops.shape(targets)[1], dtype="int32")
        targets = ops.where(ops.equal(places, index), ops.cast(target_ids, "int32"), targets)
        logits = self._logits(sources, targets)
        newest = ops.take(logits, ops.reshape(ops.cast(index, "int32"), (1,)), axis=1)  # [R, 1, V]
        return newest, {**cache, "self": [sources, targets]}

    def _logits(self, *ids):
        found = self._outputs(*ids)
        return found if self._widths[1] is None else found[:, : ops.shape(ids[1])[1]]

    def _outputs(self, *ids):
        ids = [_widened(each, width) for each, width in zip(ids, self._widths, strict=True)]
        return self.model(self._pack(*ids), training=False)

    def _packing(self):
        """Returns the function that makes the model's input from source and target ids."""
        count = len(getattr(self.model, "inputs", None) or NAMES)
        if count != 2:
            raise ValueError(f"{EXPECTED}. {self.model.name!r} has {count} input(s).")
        try:
            structure = self.model.input
        except (AttributeError, ValueError):  # a subclass of keras.Model
            return self._packing_that_works()
        if isinstance(structure, dict) and set(structure) == set(NAMES):
            inputs = [structure[name] for name in NAMES]
            packing = _as_dictionary
        elif isinstance(structure, list | tuple) and len(structure) == 2:
            inputs, packing = structure, _as_list
        else:
            names = sorted(structure) if isinstance(structure, dict) else self.model.input_names
            raise ValueError(f"{EXPECTED}. The inputs of {self.model.name!r} are {names}.")
        shapes = [tuple(each.shape) for each in inputs]
        if any(len(shape) != 2 or shape[0] is not None for shape in shapes):
            raise ValueError(
                f"{EXPECTED}. The inputs of {self.model.name!r} have the shapes {shapes}, which "
                "are not [None, length]."
            )
        self._widths = tuple(shape[1] for shape in shapes)
        return packing

    def _packing_that_works(self):
        errors = []
        for packing in (_as_dictionary, _as_list):
            try:
                self.model(packing(*_ones(2, 2)), training=False)
            except Exception as error:  # a model may raise anything
                errors.append(str(error).splitlines()[0] if str(error) else repr(error))
            else:
                return packing
        raise ValueError(
            f"{EXPECTED}. Called with a dictionary, {self.model.name!r} says: {errors[0]} Called "
            f"with a list, it says: {errors[1]}"
        )

    def _check_logits(self):
        """Returns the size of the target's vocabulary, from the outputs for 2 and 3 tokens."""
        found, length = self._outputs(*_ones(2, 3)), self._widths[1] or 3
        shape = tuple(getattr(found, "shape", ()))
        if len(shape) != 3 or shape[1] != length:
            raise ValueError(
                f"{EXPECTED}. For {length} target ids the output of {self.model.name!r} is "
                f"{shape or type(found).__name__}."
            )
        values = ops.convert_to_numpy(ops.cast(found, "float32"))
        if (values >= 0).all() and np.allclose(values.sum(axis=-1), 1.0, atol=1e-3):
            raise ValueError(
                f"{EXPECTED}. The outputs of {self.model.name!r} are probabilities. Leave out the "
                "softmax at its end, or pass keras.Model(model.input, keras.ops.log(model.output))."
            )
        return values.shape[-1]

    def _most(self, side):
        """Returns how many ids the model takes on a side at most; None for `MOST` or more."""
        if self._widths[side] is not None:
            return self._widths[side]

        def refuses(length):
            return not self._takes(*((length, 2) if side == 0 else (2, length)))

        found = bisect.bisect_left(range(MOST + 1), True, lo=4, key=refuses) - 1  # it takes 3
        return None if found == MOST else found

    def _takes(self, *lengths):
        """Whether the model takes so many source and target ids."""
        try:
            return not used_missing_rows(self._logits(*_ones(*lengths)))
        except Exception:  # too long for its positions
            return False


def _as_dictionary(*ids):
    return dict(zip(NAMES, ids, strict=True))


def _as_list(*ids):
    return list(ids)


def _ones(*lengths):
    return [ops.ones((1, length), dtype="int32") for length in lengths]


def _widened(ids, width):
    """Pads ids [B, T] to the width of an input."""
    if width is None:
        return ids
    fill = ops.zeros((ops.shape(ids)[0], width - ops.shape(ids)[1]), dtype="int32")
    return ops.concatenate([ops.cast(ids, "int32"), fill], axis=1)
