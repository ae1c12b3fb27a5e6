"""Parity with PyTorch's Transformer, cross-entropy and Adam, for values and gradients.

PyTorch computes in float64 here, so that differences come from this package's float32.
"""

import numpy as np
import pytest
from gradients import value_and_gradients
from keras import ops
from test_optimizers import arrays, assert_close, gradients, paper_rate, updater, variables
from test_parity import array, normal, randomize

from keras_transformer import layers
from keras_transformer.losses import SmoothedCrossentropy
from keras_transformer.optimizers import PaperAdam

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[parity]'")
torch.set_num_threads(1)  # more threads would wait for the threads of the backend

B, T, S, D, H, F = 2, 5, 7, 12, 3, 17
SOURCE_MASK = np.array([[1, 1, 1, 1, 1, 0, 0], [1, 0, 1, 1, 0, 1, 1]], bool)
TARGET_MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], bool)


def double(x):
    return torch.tensor(np.asarray(x), dtype=torch.float64)


def assert_same(found, expected, scale, tolerance=1e-5):
    """Checks equality, with a tolerance relative to `scale`."""
    np.testing.assert_allclose(found / scale, expected.numpy() / scale, rtol=0, atol=tolerance)


# --- the Transformer


def torch_transformer(norm, activation):
    """Builds `torch.nn.Transformer`. Its default stacks end with a norm in post-norm as well."""
    first = norm == "pre"
    block = {"dropout": 0.0, "activation": activation, "batch_first": True, "norm_first": first}
    encoder = torch.nn.TransformerEncoder(
        torch.nn.TransformerEncoderLayer(D, H, F, **block),
        num_layers=2,
        norm=torch.nn.LayerNorm(D) if first else None,
        enable_nested_tensor=False,
    )
    decoder = torch.nn.TransformerDecoder(
        torch.nn.TransformerDecoderLayer(D, H, F, **block),
        num_layers=3,
        norm=torch.nn.LayerNorm(D) if first else None,
    )
    return torch.nn.Transformer(
        D, H, custom_encoder=encoder, custom_decoder=decoder, batch_first=True
    ).double()


# The functions below return pairs that should be equal: (our variable or None, their parameter,
# its rows).


def same_attention(ours, theirs):
    for i, name in enumerate(("query", "key", "value")):
        rows = slice(i * D, (i + 1) * D)  # theirs is one matrix [3 D, D]
        yield getattr(ours, name).kernel, theirs.in_proj_weight, rows
        yield getattr(ours, name).bias, theirs.in_proj_bias, rows
    yield ours.output_projection.kernel, theirs.out_proj.weight, slice(None)
    yield ours.output_projection.bias, theirs.out_proj.bias, slice(None)


def same_norm(ours, theirs):
    yield ours.gamma, theirs.weight, slice(None)
    yield ours.beta, theirs.bias, slice(None)


def same_block(ours, theirs):
    yield from same_attention(ours.self_attention, theirs.self_attn)
    joins = [ours.join_self_attention, ours.join_feed_forward]
    if isinstance(ours, layers.DecoderLayer):
        yield from same_attention(ours.cross_attention, theirs.multihead_attn)
        joins.insert(1, ours.join_cross_attention)
    for i, join in enumerate(joins, 1):
        yield from same_norm(join.layer_norm, getattr(theirs, f"norm{i}"))
    for dense, linear in (("inner", theirs.linear1), ("outer", theirs.linear2)):
        dense = getattr(ours.feed_forward, dense)
        yield dense.kernel, linear.weight, slice(None)
        yield dense.bias, linear.bias, slice(None)


def same_stack(ours, theirs):
    for pair in zip(ours.layers, theirs.layers, strict=True):
        yield from same_block(*pair)
    if theirs.norm is not None:
        yield from same_norm(ours.final_norm, theirs.norm)


def copy_to_torch(pairs):
    with torch.no_grad():
        for ours, theirs, rows in pairs:
            theirs[rows] = 0 if ours is None else double(array(ours).T)


# Fails if: scores are divided by sqrt(d_model); the decoder is not causal; the mask of the memory
# or of the target is dropped; there is no residual; post-norm ends with another norm; epsilon
# differs.
@pytest.mark.parametrize(
    ("norm", "use_bias", "activation"),
    [
        ("post", False, "relu"),
        ("post", True, "gelu"),
        ("pre", False, "relu"),
        ("pre", True, "relu"),
    ],
)
def test_encoder_and_decoder_are_torchs_with_every_gradient(norm, use_bias, activation):
    block = {"d_model": D, "num_heads": H, "d_ff": F, "dropout": 0.3, "epsilon": 1e-5}
    block |= {"norm": norm, "use_bias": use_bias, "activation": activation}
    encoder, decoder = layers.Encoder(2, **block), layers.Decoder(3, **block)
    encoder.build((B, S, D))
    decoder.build((B, T, D), (B, S, D))
    randomize(encoder), randomize(decoder)
    theirs = torch_transformer(norm, activation)
    pairs = [*same_stack(encoder, theirs.encoder), *same_stack(decoder, theirs.decoder)]
    copy_to_torch(pairs)
    ours = [variable for variable, _, _ in pairs if variable is not None]
    weights = encoder.trainable_variables + decoder.trainable_variables
    assert {id(variable) for variable in ours} == {id(weight) for weight in weights}

    # Every entry of the output has a weight of its own in the gradient, also at padding.
    source, target, say = normal(B, S, D), normal(B, T, D), normal(B, T, D)

    def forward(source, target):
        # The addition outside a layer drops the implicit mask, so that the explicit one is tested.
        memory = encoder(source, mask=SOURCE_MASK) + 0.0
        return decoder(target, memory, inputs_mask=TARGET_MASK, memory_mask=SOURCE_MASK)

    _, found = value_and_gradients(
        lambda *inputs: ops.sum(ops.multiply(forward(*inputs), say)), [source, target], ours
    )
    their_inputs = [double(x).requires_grad_(True) for x in (source, target)]
    ignore_source, ignore_target = torch.tensor(~SOURCE_MASK), torch.tensor(~TARGET_MASK)
    output = theirs(
        *their_inputs,
        tgt_mask=torch.ones(T, T, dtype=torch.bool).triu(1),
        src_key_padding_mask=ignore_source,
        tgt_key_padding_mask=ignore_target,
        memory_key_padding_mask=ignore_source,
    )
    assert_same(array(forward(source, target)), output.detach(), output.abs().max().item())

    (output * double(say)).sum().backward()
    expected = [x.grad for x in their_inputs]
    expected += [theirs.grad[rows].t() for ours, theirs, rows in pairs if ours is not None]
    # Biases of keys have gradient 0, because adding a number to all scores changes no softmax.
    least = 0.01 * max(gradient.abs().max().item() for gradient in expected)
    for gradient, their_gradient in zip(found, expected, strict=True):
        assert_same(gradient, their_gradient, max(least, their_gradient.abs().max().item()), 3e-5)


# --- training


# Fails if: eps is divided by V - 1; padding counts; the gradient at the label lacks eps / V.
@pytest.mark.parametrize("eps", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_label_smoothing_is_torchs_with_its_gradient(eps, reduction):
    labels = np.array([[3, 1, 18, 0, 0], [7, 7, 2, 11, 5]])
    logits = 3 * normal(B, T, 19)
    # With weights the loss is a sum. Without weights it is a mean over real tokens.
    weights = np.ones((B, T), "float32") if reduction == "sum" else None
    loss = SmoothedCrossentropy(eps)
    value, (gradient,) = value_and_gradients(lambda x: loss(labels, x, weights), [logits])
    theirs = torch.nn.CrossEntropyLoss(label_smoothing=eps, ignore_index=0, reduction=reduction)
    their_logits = double(logits).requires_grad_(True)
    expected = theirs(their_logits.reshape(-1, 19), torch.tensor(labels).reshape(-1))
    expected.backward()
    np.testing.assert_allclose(value, expected.item(), rtol=1e-6)
    assert_same(gradient, their_logits.grad, their_logits.grad.abs().max().item())
    assert (gradient[labels == 0] == 0).all()


# Fails if: the schedule starts at step 0; beta_2 is 0.999; nothing is clipped.
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("longest", [None, 1000.0])
def test_paper_adam_is_torchs_with_its_schedule_clipping_and_decay(decay, longest):
    """PyTorch adds epsilon after correcting v, Keras before. Gradients are far above epsilon."""
    weights = variables()
    theirs = [double(value).requires_grad_(True) for value in arrays(weights)]
    apply = updater(PaperAdam(12, 5, weight_decay=decay or None, global_clipnorm=longest), weights)
    optimizer = torch.optim.AdamW(theirs, 1.0, betas=(0.9, 0.98), eps=1e-9, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: paper_rate(n + 1))
    clipped = []
    for step in range(9):
        values = gradients(step, scale=1000.0)
        apply(values)
        for parameter, value in zip(theirs, values, strict=True):
            parameter.grad = double(value)
        if longest:
            norm = torch.nn.utils.clip_grad_norm_(theirs, longest)
            clipped.append(norm.item() > longest)
        optimizer.step()
        schedule.step()
        assert_close(arrays(weights), [parameter.detach().numpy() for parameter in theirs])
    assert not longest or any(clipped)
