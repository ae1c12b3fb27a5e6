"""The machine's matrix-product rate through PyTorch (oneDNN or MKL)."""

import time

import torch


def prepare(config):
    def answer(request):
        best = 0.0
        for size in (1024, 2048):
            a = torch.randn(size, size).to(getattr(torch, config["dtype"]))
            a @ a
            begin, count = time.perf_counter(), 0
            while time.perf_counter() - begin < request["seconds"]:
                a @ a
                count += 1
            best = max(best, 2 * size**3 * count / (time.perf_counter() - begin))
        return {"rate": best}

    return answer, {}
