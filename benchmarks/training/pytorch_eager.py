"""`torch.nn.Transformer` with a tied embedding, trained in a plain loop."""

import math

import torch
from pytorch_loop import answers, load
from torch import nn


class Model(nn.Module):
    def __init__(self, vocabulary_size, size, longest):
        super().__init__()
        d_model, layers = size["d_model"], size["num_layers"]
        self.embedding = nn.Embedding(vocabulary_size, d_model, padding_idx=0)
        nn.init.normal_(self.embedding.weight, std=d_model**-0.5)
        self.dropout = nn.Dropout(size["dropout"])
        self.transformer = nn.Transformer(
            d_model,
            size["num_heads"],
            layers,
            layers,
            size["d_ff"],
            size["dropout"],
            layer_norm_eps=1e-6,
            batch_first=True,
        )
        angles = torch.arange(longest)[:, None] * torch.exp(
            -math.log(10_000) * torch.arange(0, d_model, 2) / d_model
        )
        positions = torch.stack([angles.sin(), angles.cos()], dim=-1).reshape(longest, d_model)
        self.register_buffer("positions", positions)
        self.scale = math.sqrt(d_model)

    def embed(self, ids):
        x = self.embedding(ids) * self.scale + self.positions[: ids.shape[1]]
        return self.dropout(x)

    def forward(self, source, target):
        length = target.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).triu(1)
        x = self.transformer(
            self.embed(source),
            self.embed(target),
            tgt_mask=causal,
            tgt_is_causal=True,
            src_key_padding_mask=source == 0,
            memory_key_padding_mask=source == 0,
        )
        return x @ self.embedding.weight.t()


def build(config):
    batches = load(config["batches"])
    longest = max(array.shape[1] for batch in batches for array in batch)
    return Model(config["vocabulary_size"], config["size"], longest), batches


def loss_of(model):
    def loss(batch):
        source, target, labels = batch
        logits = model(source, target)
        return nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=0, label_smoothing=0.1
        )

    return loss


def prepare(config):
    model, batches = build(config)
    facts = {"parameters": sum(weight.numel() for weight in model.parameters())}
    return answers(model, loss_of(model), batches, config["dtype"]), facts
