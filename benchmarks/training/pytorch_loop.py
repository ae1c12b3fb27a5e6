"""Shared by the contestants that train in a PyTorch loop."""

import contextlib
import time

import numpy as np
import torch


def load(file):
    """Returns the batches as tuples of tensors: source, target, labels."""
    with np.load(file) as arrays:
        count = len(arrays.files) // 4
        return [
            tuple(torch.tensor(arrays[f"{n}_{i}"]).long() for n in ("source", "target", "labels"))
            for i in range(count)
        ]


def autocast(dtype):
    if dtype == "float32":
        return contextlib.nullcontext
    return lambda: torch.autocast("cpu", dtype=torch.bfloat16)


def answers(model, loss_of, batches, dtype):
    """Returns a function that runs the steps asked for: loss, gradients, update of a fused Adam."""
    optimizer = torch.optim.Adam(
        model.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-9, fused=True
    )
    context = autocast(dtype)
    model.train()

    def answer(request):
        begin = time.perf_counter()
        for step in range(request["steps"]):
            optimizer.zero_grad(set_to_none=True)
            with context():
                loss = loss_of(batches[step % len(batches)])
            loss.backward()
            optimizer.step()
        return {"seconds": time.perf_counter() - begin, "loss": float(loss.detach())}

    return answer
