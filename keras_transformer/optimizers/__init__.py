"""Adam as in the paper, loss scaling for float16, and the paper's learning-rate schedule."""

from keras_transformer.optimizers import schedules
from keras_transformer.optimizers.loss_scale import LossScale
from keras_transformer.optimizers.paper_adam import PaperAdam

__all__ = ["LossScale", "PaperAdam", "schedules"]
