"""JoeyNMT 2.3's model, loss and training step. It runs in a Python of its own."""

import types

import torch
from joeynmt.model import build_model
from joeynmt.vocabulary import Vocabulary
from pytorch_loop import answers, load


def prepare(config):
    size = config["size"]
    specials = types.SimpleNamespace(
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        sep_token=None,
        lang_tags=[],
        unk_id=0,
        pad_id=1,
        bos_id=2,
        eos_id=3,
        sep_id=None,
    )
    vocabulary = Vocabulary([], specials)
    # Filled by hand, because JoeyNMT's own method takes O(V^2).
    vocabulary._itos += [f"t{i}" for i in range(4, config["vocabulary_size"])]
    vocabulary._stoi.update((token, i) for i, token in enumerate(vocabulary._itos))
    stack = {
        "type": "transformer",
        "num_layers": size["num_layers"],
        "num_heads": size["num_heads"],
        "embeddings": {"embedding_dim": size["d_model"], "scale": True},
        "hidden_size": size["d_model"],
        "ff_size": size["d_ff"],
        "dropout": size["dropout"],
        "layer_norm": "post",
    }
    model = build_model(
        {
            "encoder": stack,
            "decoder": stack,
            "tied_embeddings": True,
            "tied_softmax": True,
            "initializer": "xavier_uniform",
            "embed_initializer": "xavier_uniform",
            "bias_initializer": "zeros",
        },
        vocabulary,
        vocabulary,
    )
    model.loss_function = ("crossentropy", 0.1)
    swap = torch.arange(config["vocabulary_size"])
    swap[0], swap[1] = 1, 0  # JoeyNMT's pad id is 1

    def batch_of(source, target, labels):
        source, target, labels = swap[source], swap[target], swap[labels]
        return {
            "src": source,
            "src_length": (source != 1).sum(1),
            "src_mask": (source != 1)[:, None],
            "trg_input": target,
            "trg": labels,
            "trg_mask": (labels != 1)[:, None],
        }

    def loss_of(batch):
        loss, _, _, _ = model(return_type="loss", **batch)
        return loss / batch["trg_mask"].sum()

    batches = [batch_of(*batch) for batch in load(config["batches"])]
    facts = {"parameters": sum(weight.numel() for weight in model.parameters())}
    return answers(model, loss_of, batches, config["dtype"]), facts
