"""Turns a `Transformer` into one of `transformers`: Marian if post-norm, Pegasus if pre-norm."""

import numpy as np
import torch
import transformers

from keras_transformer.layers import sinusoids


def to_huggingface(model, longest, pad_id, start_id, end_id, **options):
    """Returns a `MarianMTModel` or `PegasusForConditionalGeneration` with the weights of `model`.

    Args:
        model: A `Transformer` with sinusoids, ReLU and one vocabulary.
        longest: The largest number of positions.
        pad_id, start_id, end_id: The special ids.
        **options: Further arguments of the configuration.
    """
    config, pre_norm = model.get_config(), model.encoder.layers[0].norm == "pre"
    kinds = (
        (transformers.PegasusConfig, transformers.PegasusForConditionalGeneration)
        if pre_norm
        else (transformers.MarianConfig, transformers.MarianMTModel)
    )
    theirs = kinds[1](
        kinds[0](
            vocab_size=config["vocabulary_size"],
            d_model=config["d_model"],
            encoder_layers=model.encoder.num_layers,
            decoder_layers=model.decoder.num_layers,
            encoder_attention_heads=config["num_heads"],
            decoder_attention_heads=config["num_heads"],
            encoder_ffn_dim=config["d_ff"],
            decoder_ffn_dim=config["d_ff"],
            activation_function="relu",
            scale_embedding=True,
            max_position_embeddings=longest,
            pad_token_id=pad_id,
            eos_token_id=end_id,
            forced_eos_token_id=None,
            decoder_start_token_id=start_id,
            **options,
        )
    ).eval()
    assert theirs.lm_head.weight is theirs.model.shared.weight
    assert not theirs.final_logits_bias.any()
    positions = torch.tensor(np.array(sinusoids(longest, config["d_model"])))
    with torch.no_grad():
        embeddings = model.source_embedding.token.embeddings
        theirs.model.shared.weight.copy_(torch.tensor(embeddings.numpy()))
        for name in ("encoder", "decoder"):
            stack, ours = getattr(theirs.model, name), getattr(model, name)
            assert stack.embed_tokens.weight is theirs.model.shared.weight
            stack.embed_positions.weight.copy_(positions)
            for pair in zip(stack.layers, ours.layers, strict=True):
                _layer(*pair, decoder=name == "decoder")
            if pre_norm:
                _norm(stack.layer_norm, ours.final_norm)
    return theirs


def _layer(theirs, ours, decoder):
    _attention(theirs.self_attn, ours.self_attention)
    _norm(theirs.self_attn_layer_norm, ours.join_self_attention.layer_norm)
    if decoder:
        _attention(theirs.encoder_attn, ours.cross_attention)
        _norm(theirs.encoder_attn_layer_norm, ours.join_cross_attention.layer_norm)
    _linear(theirs.fc1, ours.feed_forward.inner.kernel, ours.feed_forward.inner.bias)
    _linear(theirs.fc2, ours.feed_forward.outer.kernel, ours.feed_forward.outer.bias)
    _norm(theirs.final_layer_norm, ours.join_feed_forward.layer_norm)


def _linear(theirs, kernel, bias):
    theirs.weight.copy_(torch.tensor(kernel.numpy().T))
    theirs.bias.copy_(torch.zeros(len(theirs.bias)) if bias is None else torch.tensor(bias.numpy()))


def _attention(theirs, ours):
    for name in ("query", "key", "value", "output"):
        part = {"output": "out_proj"}.get(name, f"{name[0]}_proj")
        layer = getattr(ours, {"output": "output_projection"}.get(name, name))
        _linear(getattr(theirs, part), layer.kernel, layer.bias)


def _norm(theirs, ours):
    theirs.eps = ours.epsilon  # their configuration has no option for it
    theirs.weight.copy_(torch.tensor(ours.gamma.numpy()))
    theirs.bias.copy_(torch.tensor(ours.beta.numpy()))
