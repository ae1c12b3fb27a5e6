"""Copies the weights of a backbone of KerasHub by their paths, which its saved files have too."""

import math
import re
from collections.abc import Mapping

import keras
import numpy as np


class Weights:
    """The weights of a backbone by path, of which each is taken once.

    Args:
        backbone: The backbone.
        names: Replacements that make their path of ours, in this order: {regular expression: text}.
    """

    def __init__(self, backbone: keras.Model, names: Mapping[str, str]) -> None:
        self._left = {weight.path: weight for weight in backbone.weights}
        self._names = names

    def take(self, path: str) -> np.ndarray:
        """The weight of this path, as float32.

        Raises:
            ValueError: If there is none.
        """
        if path not in self._left:
            raise ValueError(
                f"The backbone has no weight {path}. It was changed after it was made, or belongs "
                "to another version of KerasHub. This package was tested with keras-hub 0.32."
            )
        weight = keras.ops.cast(self._left.pop(path), "float32")
        return keras.ops.convert_to_numpy(weight)

    def fill(self, model: keras.Model, computed: Mapping[str, np.ndarray], new: str = "") -> None:
        """Assigns all weights of a model.

        Args:
            model: A model of this package.
            computed: Weights that are not copied as they are, by our path.
            new: The name of a layer that keeps its random weights, if there is one.

        Raises:
            ValueError: If a weight is missing, has another size, or is left.
        """
        for weight in model.weights:
            if new and weight.path.startswith(f"{new}/"):
                continue
            value = computed.get(weight.path)
            value = self._renamed(weight) if value is None else value
            if value.size != math.prod(weight.shape):
                raise ValueError(
                    f"The weight for {weight.path} has shape {value.shape}, expected "
                    f"{tuple(weight.shape)}. The backbone was changed after it was made: load it "
                    "again."
                )
            weight.assign(value.reshape(weight.shape))
        if self._left:
            raise ValueError(
                f"The backbone has {len(self._left)} weights that a {type(model).__name__} does "
                f"not have, such as {next(iter(self._left))}. If it was quantised, or adapted by "
                "LoRA, load it as it was before."
            )

    def _renamed(self, weight):
        name = weight.path
        for pattern, replacement in self._names.items():
            name = re.sub(pattern, replacement, name)
        if name not in self._left and name.endswith("/bias"):
            return np.zeros(weight.shape)  # an option of theirs
        return self.take(name)
