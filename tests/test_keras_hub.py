"""Backbones and tokenizers of KerasHub: the models made of them compute the same."""

import keras
import numpy as np
import pytest
from hub_models import MERGES, PIECES, SIZES, backbone, tokenizer
from keras import ops
from uncompiled import search_uncompiled

import keras_transformer as kt
from keras_transformer.interop.keras_hub.ids import our_ids, their_ids

keras_hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed")
load, HubTokenizer = kt.interop.keras_hub.load, kt.interop.keras_hub.HubTokenizer

TEXTS = ["a quick fox", "a fox"]
# Lengths of the rows of a batch; the last batch is as long as the learned positions.
LENGTHS = [(5, 3), (2,), (11, 7, 11)]


def array(x):
    return ops.convert_to_numpy(x)


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)


def batch(family, lengths, seed):
    """Their ids [B, S], the mask of the real ones, and our ids."""
    rng = np.random.default_rng(seed)
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    theirs = rng.integers(2, SIZES["vocabulary_size"], mask.shape)  # no padding
    theirs[:, 0] = 0 if family != "Bert" else 2
    ours = our_ids(their_ids(f"{family}Backbone", SIZES["vocabulary_size"]))
    return theirs, mask, np.where(mask, ours[theirs], 0)


@pytest.fixture(scope="module")
def made():
    """Returns a function from a family to its backbone and our model, each made once."""
    found = {}

    def make(family):
        if family not in found:
            theirs = backbone(family)
            found[family] = theirs, load(theirs, *[5] * (family == "ViT"))
        return found[family]

    return make


# Fails if: epsilon is 1e-3; the exact gelu stands for that with tanh; the segment is left out; the
# embedding is not divided; ids 0 and 1 are not swapped.
@pytest.mark.parametrize("family", ["Bert", "Roberta", "XLMRoberta"])
def test_an_encoder_is_the_backbone(family, made):
    theirs, model = made(family)
    for seed, lengths in enumerate(LENGTHS):
        ids, mask, ours = batch(family, lengths, seed)
        inputs = {"token_ids": ids, "padding_mask": mask}
        if family == "Bert":
            inputs["segment_ids"] = np.zeros_like(ids)
        expected = theirs(inputs)
        expected = expected["sequence_output"] if family == "Bert" else expected
        assert_close(array(model.encode(ours))[mask], array(expected)[mask])


# Fails if: the pad id is ignored by the model or by the tokenizer.
@pytest.mark.tensorflow_only
def test_padding_may_have_another_id():
    words = ["[UNK]", "a", "[CLS]", "[PAD]", "[SEP]", "[MASK]", "fox"]
    theirs = backbone("Bert", num_layers=1)
    model = load(theirs, pad_id=3)
    ours = HubTokenizer(keras_hub.models.BertTokenizer(vocabulary=words))
    ids = kt.data.encode_texts(["a zebra fox", "fox"], ours).rows(np.arange(2), (2, 5))
    assert ours.unknown_id == 3 and (ids[1] == [2, 6, 4, 0, 0]).all()
    inputs = {
        "token_ids": np.array([[2, 1, 0, 6, 4], [2, 6, 4, 3, 3]]),
        "padding_mask": ids != 0,
        "segment_ids": np.zeros_like(ids),
    }
    expected = array(theirs(inputs)["sequence_output"])[ids != 0]
    assert_close(array(model.encode(ids))[ids != 0], expected)


# Fails if: the last norm is not multiplied by sqrt(D); the logit of padding has no bias.
def test_gpt2_has_the_logits_of_keras_hub(made):
    theirs, model = made("GPT2")
    for seed, lengths in enumerate(LENGTHS):
        ids, mask, ours = batch("GPT2", lengths, seed)
        hidden = theirs({"token_ids": ids, "padding_mask": mask})
        expected = array(theirs.token_embedding(hidden, reverse=True))[mask]
        found = array(model(ours))[mask]
        assert_close(found[:, 1:], expected)
        shares = array(ops.softmax(found))
        assert_close(shares[:, 1:], array(ops.softmax(expected)))


# Fails if: encoder and decoder share positions or norms; the wrong layer's norm is multiplied.
def test_bart_has_the_logits_of_keras_hub(made):
    theirs, model = made("Bart")
    ours = our_ids(their_ids("BartBackbone", SIZES["vocabulary_size"]))
    for seed, lengths in enumerate(LENGTHS):
        ids, mask, source_ids = batch("Bart", lengths, seed)
        targets, target_mask, target_ids = batch("Bart", lengths[::-1], seed + 9)
        targets[:, 0], target_ids[:, 0] = 2, 1  # they start with </s>
        hidden = theirs(
            {
                "encoder_token_ids": ids,
                "encoder_padding_mask": mask,
                "decoder_token_ids": targets,
                "decoder_padding_mask": target_mask,
            }
        )["decoder_sequence_output"]
        expected = array(theirs.token_embedding(hidden, reverse=True))[target_mask]
        found = array(model({"source_ids": source_ids, "target_ids": target_ids}))[target_mask]
        assert_close(found[:, ours], expected)
        assert (found[:, 1] < -9000).all()  # the start is never emitted


# Fails if: blocks are in another order; a kernel of patches is transposed; epsilon is 1e-6.
@pytest.mark.parametrize(
    "options",
    [
        {},
        dict.fromkeys(("use_class_token", "use_mha_bias", "use_mlp_bias", "use_patch_bias"), False),
    ],
    ids=["vit", "fewer-weights"],
)
def test_vit_is_the_backbone(options, made):
    theirs, model = made("ViT")
    if options:
        theirs = backbone("ViT", layer_norm_epsilon=0.01, **options)
        model = load(theirs, 5)
    images = np.random.default_rng(2).normal(size=(2, 6, 4, 3)).astype("float32")
    assert_close(array(model.encoder(model.embedding(images))), array(theirs(images)))
    assert model(images).shape == (2, 5)


# Fails if: a rate or epsilon is left at its default; a policy is not passed on.
@pytest.mark.parametrize("family", ["Bert", "GPT2", "Bart", "ViT"])
def test_rates_epsilon_and_the_policy_are_those_of_the_backbone(family):
    rates = {"dropout": 0.3}
    if family == "ViT":
        rates = {"dropout_rate": 0.3, "attention_dropout": 0.2}
    theirs = backbone(family, **rates, num_layers=1, dtype="bfloat16")
    config = load(theirs, *[5] * (family == "ViT")).get_config()
    assert config["dropout"] == 0.3 and config["dtype"] == "bfloat16"
    assert config["attention_dropout"] == (0.2 if family == "ViT" else 0.3)
    assert config["epsilon"] == {"Bert": 1e-12, "ViT": 1e-6}.get(family, 1e-5)


# Fails if: no file can name the activation.
@pytest.mark.parametrize("family", ["GPT2", "Bart"])
def test_a_saved_model_computes_the_same(family, made, tmp_path):
    _, model = made(family)
    _, _, ids = batch(family, (5, 3), 1)
    inputs = {"source_ids": ids, "target_ids": ids} if family == "Bart" else ids
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_config() == model.get_config()
    np.testing.assert_array_equal(array(loaded(inputs)), array(model(inputs)))


# Fails if: the classifier has no norm after its embeddings.
def test_a_classifier_has_the_encoder_of_bert(made):
    theirs, model = made("Bert")
    classifier = load(theirs, num_classes=3)
    _, _, ids = batch("Bert", (5, 3), 1)
    found = classifier.encoder(classifier.embedding(ids))
    np.testing.assert_array_equal(array(found), array(model.encode(ids)))
    assert classifier(ids).shape == (2, 3)
    other = kt.models.TextClassifier(
        num_classes=2, **{k: v for k, v in model.get_config().items() if k != "name"}
    )
    other.take_encoder(model)


# Fails if: every step has position 0.
def test_a_sampler_writes_what_keras_hub_writes(made):
    theirs, model = made("GPT2")
    task = keras_hub.models.GPT2CausalLM(theirs)
    task.compile(sampler="greedy", run_eagerly=keras.backend.backend() == "tensorflow")
    prompts, length = np.array([[7, 4, 3], [5, 9, 11]]), 5
    ids = np.pad(prompts, ((0, 0), (0, length)))
    inputs = {"token_ids": ids, "padding_mask": np.arange(ids.shape[1])[None] < [[3], [3]]}
    expected = array(task.generate(inputs, stop_token_ids=None)["token_ids"])
    sampler = kt.decoding.Sampler(model)
    found = sampler.generate((prompts + 1).tolist(), length, temperature=0)
    np.testing.assert_array_equal(np.array(found) - 1, expected)


# --- what cannot be read


def test_other_models_are_refused(made):
    theirs, _ = made("GPT2")
    with pytest.raises(ValueError, match="A GPT2CausalLM cannot be read.*backbone of a task"):
        load(keras_hub.models.GPT2CausalLM(theirs))

    class GPT2Backbone(keras_hub.models.GPT2Backbone):
        """Somebody's own, with another wiring."""

    with pytest.raises(ValueError, match="A GPT2Backbone cannot be read"):
        load(GPT2Backbone(**{**SIZES, "num_layers": 1}))
    with pytest.raises(ValueError, match="A GPT2Backbone takes no num_classes and no pad_id"):
        load(theirs, num_classes=3, pad_id=0)
    with pytest.raises(ValueError, match="Give num_classes"):
        load(made("ViT")[0])
    with pytest.raises(ValueError, match=r"has patch_size=\(2, 1\)"):
        load(backbone("ViT", patch_size=(2, 1)), 5)


# Fails if: weights that are left over are ignored.
def test_a_changed_backbone_is_refused():
    theirs = backbone("Roberta", num_layers=1)
    theirs.get_layer("transformer_layer_0")._feedforward_output_dense.enable_lora(1)
    with pytest.raises(
        ValueError, match="2 weights that a MaskedLanguageModel does not have.*LoRA"
    ):
        load(theirs)
    theirs = backbone("GPT2", num_layers=1)
    theirs.get_layer("token_embedding").quantize("int8")
    with pytest.raises(ValueError, match="If it was quantised"):
        load(theirs)


# --- tokenizers


# Fails if: ids are not mapped; BART's text has no <s>; the start of GPT-2 ends what is decoded.
@pytest.mark.tensorflow_only
@pytest.mark.parametrize("family", ["Bert", "Roberta", "XLMRoberta", "GPT2", "Bart"])
def test_text_has_the_ids_of_the_model(family, tmp_path):
    theirs = tokenizer(family)
    ours = HubTokenizer(theirs)
    map_ids = our_ids(their_ids(f"{family}Backbone", theirs.vocabulary_size()))
    begin = [2] if family == "Bart" else []
    expected = [begin + map_ids[row].tolist() for row in theirs.tokenize(TEXTS)]
    assert ours.encode(TEXTS) == expected and ours.encode(TEXTS[0]) == expected[0]
    assert ours.encode(["", TEXTS[1]]) == [[], expected[1]] and ours.encode([]) == []
    rows = [[ours.start_id, *row, ours.end_id, expected[0][-1], 0] for row in expected]
    assert ours.decode(rows) == TEXTS and ours.decode(np.array(rows[0])) == TEXTS[0]
    pieces = [ours.id_to_piece(id) for id in expected[0]]
    assert pieces[len(begin) :] == [theirs.id_to_token(id) for id in theirs.tokenize(TEXTS[0])]
    names = {ours.id_to_piece(id) for id in ours.special_ids()}
    assert {theirs.id_to_token(id) for id in theirs.special_token_ids} <= names
    assert ours.pad_id == 0 and 0 not in (ours.start_id, ours.end_id, *expected[0])
    encoded = kt.data.encode_texts(TEXTS, ours, max_length=9)
    assert encoded.rows(np.array([0]), (1, 9))[0, 0] == ours.start_id
    ours.save_to_folder(tmp_path / "tokenizer")
    loaded = HubTokenizer.from_folder(tmp_path / "tokenizer")
    assert loaded.encode(TEXTS) == expected and type(loaded.tokenizer) is type(theirs)


# Fails if: the unknown token is hidden, like text.
@pytest.mark.tensorflow_only
def test_tokens_are_hidden_by_the_mask_of_keras_hub():
    ours = HubTokenizer(tokenizer("Bert"))
    encoded = kt.data.encode_texts(["a fox zebra zebra"] * 9, ours)
    plan = kt.data.MaskedPlan(encoded, ours, 64, share=0.5)
    [(inputs, labels, weights)] = plan.batches(0)
    assert ours.id_to_piece(ours.mask_id) == "[MASK]"
    assert (inputs["token_ids"] == ours.mask_id).any()
    assert (labels[weights > 0] > 4).all()  # the special ids come first


# Fails if: the source has no <s>; the start of the target is that of the source.
@pytest.mark.tensorflow_only
def test_a_translator_scores_as_bart(made, monkeypatch):
    search_uncompiled(monkeypatch)
    theirs, model = made("Bart")
    translator = kt.Translator(model, HubTokenizer(tokenizer("Bart")))
    [(score, count)] = translator.score([TEXTS])
    source, target = ([0, *row, 2] for row in tokenizer("Bart").tokenize(TEXTS))
    inputs = {"encoder_token_ids": [source], "decoder_token_ids": [[2, *target[:-1]]]}
    inputs = {name: np.array(ids) for name, ids in inputs.items()}
    inputs |= {
        name.replace("token_ids", "padding_mask"): np.ones_like(ids) for name, ids in inputs.items()
    }
    hidden = theirs(inputs)["decoder_sequence_output"]
    found = ops.log_softmax(theirs.token_embedding(hidden, reverse=True))[0]
    expected = sum(float(row[id]) for row, id in zip(array(found), target, strict=True))
    np.testing.assert_allclose(score, expected, rtol=1e-5)
    assert count == len(target)
    [text] = translator.translate(TEXTS[:1], beam_size=1)
    assert "<" not in text


@pytest.mark.tensorflow_only
def test_other_tokenizers_are_refused(made, tmp_path):
    theirs = tokenizer("Bert")
    for use in (
        lambda: kt.Translator(made("Bart")[1], theirs),
        lambda: kt.data.encode_texts(TEXTS, theirs),
        lambda: kt.data.encode_pairs([TEXTS], theirs),
    ):
        with pytest.raises(ValueError, match=r"A BertTokenizer has no .*keras_hub.HubTokenizer"):
            use()
    with pytest.raises(
        ValueError, match="A Tokenizer cannot be read. Give a tokenizer of KerasHub"
    ):
        HubTokenizer(kt.text.train_tokenizer(TEXTS, 280))
    with pytest.raises(ValueError, match="pads to sequence_length=7"):
        HubTokenizer(tokenizer("Bert", sequence_length=7))
    pieces = {piece: id for id, piece in enumerate(["<pad>", "<s>", "</s>", *PIECES])}
    with pytest.raises(ValueError, match=r"this BART are \(1, 0, 2\), and \(0, 1, 2\)"):
        HubTokenizer(keras_hub.models.BartTokenizer(vocabulary=pieces, merges=MERGES))
    HubTokenizer(theirs).save_to_folder(tmp_path / "folder")
    record = tmp_path / "folder" / "hub_tokenizer.json"
    record.write_text(record.read_text().replace("BertTokenizer", "Tokenizer"))
    with pytest.raises(ValueError, match="has a Tokenizer, which cannot be read"):
        HubTokenizer.from_folder(tmp_path / "folder")
    with pytest.raises(AttributeError, match="has no model_proto.*SentencePiece vocabulary"):
        HubTokenizer(theirs).model_proto  # noqa: B018
