"""One sentence through a trained model, to look at: `keras-transformer show`.

`explain` collects what happens (attention, search, probabilities, shapes), `write` makes a folder
of it: a page that opens without a network, and pictures.
"""

from keras_transformer.show.explanation import Explanation, explain
from keras_transformer.show.page import write

__all__ = ["Explanation", "explain", "write"]
