"""The PyTorch model and loss of pytorch_eager.py with `torch.compile`."""

import torch
from pytorch_eager import build, loss_of
from pytorch_loop import answers


def prepare(config):
    model, batches = build(config)
    facts = {"parameters": sum(weight.numel() for weight in model.parameters())}
    compiled = torch.compile(loss_of(model))
    return answers(model, compiled, batches, config["dtype"]), facts
