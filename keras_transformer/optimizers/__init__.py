"""Adam as in the paper, loss scaling for float16, and the paper's learning-rate schedule."""

from keras_transformer.optimizers import schedules
from keras_transformer.optimizers.paper_adam import LossScale, PaperAdam

__all__ = ["LossScale", "PaperAdam", "schedules"]
