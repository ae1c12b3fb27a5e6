"""Tests that models of Marian and OPUS-MT come in whole: logits, searches and text are theirs.

The models are tiny and random, biases of the logits included: at zero a wrong import would pass.
transformers and CTranslate2, with its own converters, read the same folders.
"""

import io
import json
import os
import struct
import sys

import keras
import numpy as np
import pytest
from keras import ops
from marian_folders import (
    HEADS,
    SIDES,
    SIZES,
    WIDTH,
    hugging_face,
    pieces_of_both,
    processor,
    random_arrays,
    train_spm,
    write_distribution,
    write_text,
)
from uncompiled import search_uncompiled

from keras_transformer import cli, interop, load_translator
from keras_transformer.datasets import korean_english as corpus
from keras_transformer.interop.marian import files, language_tags, load
from keras_transformer.runs.run_directory import RunDirectory

pytestmark = pytest.mark.tensorflow_only  # test_transformer tests the model on every backend

LIMIT, ROOM = 30, 12
KINDS = [("unigram", 330), ("bpe", 170)]
TAGS = [">>eng<<", ">>deu<<"]


@pytest.fixture(scope="module")
def pairs():
    return corpus.generate(1, 200, 10)["train"][:120]


@pytest.fixture(scope="module")
def spm(pairs):
    """Two SentencePiece models, one of each kind."""
    sides = zip(*pairs, strict=True)
    return [train_spm(side, *kind) for side, kind in zip(sides, KINDS, strict=True)]


@pytest.fixture(scope="module")
def pieces(spm, pairs):
    """Marian's vocabulary of both sides: it lacks a piece of each that these texts contain."""
    lacking = {
        processor(m).encode(text, out_type=str)[1] for m, text in zip(spm, pairs[0], strict=True)
    }
    return [piece for piece in pieces_of_both(spm) if piece not in lacking] + TAGS


@pytest.fixture(scope="module")
def texts(pairs):
    """Sources, also with unknown characters, missing pieces and tags."""
    found = [source for source, _ in pairs[:6]]
    return [*found, f"{found[0]} Tom ½ xyz", f">>deu<< {found[1]}", f">>eng<< {found[2]} é"]


def renumbered(translator, pieces, pad):
    """For each of Marian's ids, ours of the source and of the target. Its pad is our start."""
    special = {"</s>": 3, "<unk>": 1, "<pad>": 2}
    tables = []
    for tokenizer in (translator.tokenizer, translator.target_tokenizer):
        names = {tokenizer.id_to_piece(i): i for i in range(tokenizer.vocabulary_size)}
        names |= {name.removeprefix("▁"): i for name, i in names.items() if ">>" in name} | special
        tables.append(np.array([names[piece] for piece in [*pieces, *["<pad>"] * pad]]))
    return tables


# --- Hugging Face


def marian_model(folder, spm, pieces, pairs, *, share=True, updates=0):
    """Saves a random `MarianMTModel` and its tokenizer; with some updates its sentences end."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.set_num_threads(1)
    torch.manual_seed(3)
    size = len(pieces) + 1
    config = transformers.MarianConfig(
        vocab_size=size,
        decoder_vocab_size=size,
        share_encoder_decoder_embeddings=share,
        **SIZES,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=WIDTH,
        decoder_ffn_dim=WIDTH,
        activation_function="swish",
        scale_embedding=True,
        pad_token_id=size - 1,
        decoder_start_token_id=size - 1,
        eos_token_id=0,
        forced_eos_token_id=None,
        max_position_embeddings=64,
    )
    model = transformers.MarianMTModel(config).eval()
    with torch.no_grad():
        for name, weight in [*model.named_parameters(), ("", model.final_logits_bias)]:
            if "embed_positions" not in name:
                weight.add_(torch.randn_like(weight) * 0.2)
        model.final_logits_bias[0, 1] = -20  # their text leaves out the unknown
    write_text(folder, spm, [*pieces, "<pad>"])
    names = (str(folder / name) for name in ("source.spm", "target.spm", "vocab.json"))
    options = {}
    if not share:
        (folder / "target_vocab.json").write_bytes((folder / "vocab.json").read_bytes())
        options = {"target_vocab_file": str(folder / "target_vocab.json"), "separate_vocabs": True}
    tokenizer = transformers.MarianTokenizer(*names, **options)
    tokenizer.save_pretrained(folder)
    sources, targets = map(list, zip(*pairs, strict=True))
    batch = tokenizer(sources, text_target=targets, padding=True, return_tensors="pt")
    batch["labels"][batch["labels"] == size - 1] = -100
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(updates):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    with torch.no_grad():
        for table in (model.model.encoder.embed_tokens, model.model.decoder.embed_tokens):
            table.weight[size - 1] = 0
        model.final_logits_bias[0, 0] += 2  # so that most sentences end early
    model.save_pretrained(folder)
    return model, tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models") / "hugging-face"


def generate(original, texts):
    """Their ids [texts * 3, T], and their scores: sums of log-probabilities."""
    model, tokenizer = original
    found = model.generate(
        **tokenizer(texts, return_tensors="pt", padding=True),
        num_beams=3,
        num_return_sequences=3,
        length_penalty=0.0,
        early_stopping=False,
        max_length=LIMIT,
        bad_words_ids=[[model.config.pad_token_id]],
        return_dict_in_generate=True,
        output_scores=True,
    )
    return found.sequences.tolist(), found.sequences_scores.tolist()


@pytest.fixture(scope="module")
def original(folder, spm, pieces, pairs):
    folder.mkdir()
    return marian_model(folder, spm, pieces, pairs[:24], updates=30)


@pytest.fixture(scope="module")
def translator(original, folder):
    return load(folder)


def teacher_forced(model, tokenizer, texts, size):
    """Their logits for random targets, which begin with the pad id, and both sides' ids."""
    import torch

    inputs = tokenizer(texts, return_tensors="pt", padding=True)
    targets = np.random.default_rng(5).integers(2, size - 1, (len(texts), 7))
    targets[:, 0] = size - 1
    with torch.no_grad():
        logits = model(**inputs, decoder_input_ids=torch.tensor(targets)).logits.numpy()
    return inputs["input_ids"].numpy(), inputs["attention_mask"].numpy(), targets, logits


def assert_same_logits(translator, original, texts, pieces):
    model, tokenizer = original
    size = len(pieces) + 1
    sources, real, targets, expected = teacher_forced(model, tokenizer, texts, size)
    source_ids, target_ids = renumbered(translator, pieces, 1)
    inputs = {
        "source_ids": np.where(real, source_ids[sources], 0),
        "target_ids": target_ids[targets],
    }
    [ours] = translator.models
    found = ops.convert_to_numpy(ours(inputs))
    largest = np.abs(expected).max()
    np.testing.assert_allclose(found[..., target_ids] / largest, expected / largest, atol=1e-5)
    others = np.setdiff1d(np.arange(found.shape[-1]), target_ids)
    assert (found[..., others] < -50).all() and 0 in others  # they are never emitted


# Fails if: the columns keep Marian's order; the bias of the logits is missing; epsilon is ours; the
# logit of the start is not that of their padding.
def test_logits_are_those_of_transformers(translator, original, texts, pieces):
    [model] = translator.models
    assert model.source_embedding is model.target_embedding and model.logits is None
    assert model.encoder.layers[0].epsilon == 1e-5  # PyTorch's
    assert_same_logits(translator, original, texts, pieces)


def test_two_matrices_stay_two(spm, pieces, pairs, texts, tmp_path):
    original = marian_model(tmp_path, spm, pieces, pairs[:2], share=False)
    translator = load(tmp_path)
    [model] = translator.models
    assert model.source_embedding is not model.target_embedding
    assert_same_logits(translator, original, texts, pieces)


# Fails if: pieces that the vocabulary lacks are cut out otherwise; a tag is no single piece.
def test_text_is_cut_into_their_pieces(translator, original, texts, pieces):
    _, tokenizer = original
    source_ids, _ = renumbered(translator, pieces, 1)
    ours = translator.tokenizer.encode(texts)
    unknown = 0
    for text, ids in zip(texts, ours, strict=True):
        expected = source_ids[tokenizer(text)["input_ids"][:-1]]
        # What their vocabulary lacks has an id of its own here, with the vector of the unknown.
        missing = np.array(ids) >= len(pieces) + 2
        unknown += missing.sum()
        np.testing.assert_array_equal(np.where(missing, 1, ids), expected)
    assert unknown and language_tags(translator.tokenizer) == TAGS
    table = ops.convert_to_numpy(translator.models[0].source_embedding.token.embeddings)
    assert (table[len(pieces) + 2 :] == table[1]).all() and not table[[0, 2]].any()


# Fails if: a target may be cut into a piece that the vocabulary lacks.
def test_targets_have_no_piece_that_the_model_lacks(translator, spm, pairs, pieces):
    tokenizer = translator.target_tokenizer
    targets = [target for _, target in pairs]
    lacking = [
        piece
        for piece in processor(spm[1]).encode(pairs[0][1], out_type=str)
        if piece not in pieces
    ]
    found = tokenizer.encode(targets)
    assert lacking and max(map(max, found)) < len(pieces) + 2
    assert tokenizer.decode(found)[0] == targets[0]


@pytest.fixture(scope="module")
def found(translator, texts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(translator), "EXTRA_LENGTH", ROOM)  # one shape to compile
        return translator.n_best(texts, 3, beam_size=3, length_penalty=0)


def test_beams_and_texts_are_those_of_transformers(translator, original, texts, pieces, found):
    _, tokenizer = original
    rows, scores = generate(original, texts)
    _, target_ids = renumbered(translator, pieces, 1)
    expected = tokenizer.batch_decode(rows, skip_special_tokens=True)
    theirs = list(zip(rows, expected, scores, strict=True))
    compared = ended(found, translator, texts)
    for number in compared:
        rows = theirs[3 * number : 3 * number + 3]
        for ours, (ids, text, score) in zip(found[number], rows, strict=True):
            assert ours.ids == target_ids[ids[1 : ids.index(0)]].tolist()
            assert ours.text == text
            np.testing.assert_allclose(ours.score, score, rtol=1e-4, atol=1e-5)
    assert len(compared) > 5


def ended(found, translator, texts):
    """The numbers of texts without a hypothesis at a limit of length, where searches differ."""
    lengths = [max(len(hypothesis.ids) for hypothesis in row) + 1 for row in found]
    limits = [min(len(ids) + ROOM, LIMIT - 1) for ids in translator.tokenizer.encode(texts)]
    return [number for number in range(len(texts)) if lengths[number] < limits[number]]


def test_beams_are_those_of_ctranslate2(translator, original, folder, texts, found, tmp_path):
    """Its own converter reads the same folder."""
    ctranslate2 = pytest.importorskip("ctranslate2", reason="ctranslate2 is not installed")
    _, tokenizer = original
    converter = ctranslate2.converters.TransformersConverter(str(folder))
    converter.convert(str(tmp_path / "converted"))
    engine = ctranslate2.Translator(str(tmp_path / "converted"), intra_threads=1)
    sources = [tokenizer.convert_ids_to_tokens(ids) for ids in tokenizer(texts)["input_ids"]]
    theirs = engine.translate_batch(
        sources,
        beam_size=3,
        length_penalty=0,
        patience=9,
        min_decoding_length=0,
        max_decoding_length=LIMIT,
    )
    for number in ended(found, translator, texts):
        ids = found[number][0].ids
        pieces = [translator.target_tokenizer.id_to_piece(id) for id in ids]
        assert theirs[number].hypotheses[0] == pieces


# --- OPUS-MT's distribution

PRE_NORM = {
    "transformer-preprocess": "n",
    "transformer-postprocess": "da",
    "transformer-postprocess-top": "n",
    "transformer-ffn-activation": "relu",
}


def marian_positions(length, width):
    """Marian's own table: the exponents run from 0 to 1."""
    angles = np.outer(np.arange(length), 10_000.0 ** -np.linspace(0, 1, width // 2))
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype("float32")


def pieces_of(tokenizer, texts):
    """The pieces of texts as Marian's vocabulary has them: a tag without the space before it."""
    found = [tokenizer.pieces(text) for text in texts]
    return [[p.removeprefix("▁") if ">>" in p else p for p in row] for row in found]


# Fails if: Marian's table of positions has Hugging Face's frequencies.
@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_a_distribution_is_read_as_by_ctranslate2(
    spm, pieces, texts, pairs, positions, tmp_path, monkeypatch
):
    pre_norm = positions == "sinusoidal"
    arrays = random_arrays(len(pieces), pre_norm)
    options = {k.replace("-", "_"): v for k, v in PRE_NORM.items()} if pre_norm else {}
    folder = write_distribution(tmp_path / "ours", spm, pieces, arrays, **options)
    translator = load(folder, None if positions == "learned" else positions)
    [model] = translator.models
    assert model.source_embedding.positions == positions
    assert model.encoder.layers[0].epsilon == 1e-9  # Marian's
    assert model.source_embedding.max_length == (1024 if positions == "learned" else None)
    if positions == "learned":  # CTranslate2 has only Hugging Face's sinusoids, but reads a table
        arrays["Wpos"] = marian_positions(64, SIZES["d_model"])
    folder = write_distribution(tmp_path / "theirs", spm, pieces, arrays, **options)
    ctranslate2 = pytest.importorskip("ctranslate2", reason="ctranslate2 is not installed")
    ctranslate2.converters.OpusMTConverter(str(folder)).convert(str(tmp_path / "converted"))
    engine = ctranslate2.Translator(str(tmp_path / "converted"), intra_threads=1)
    targets = ["I go home", "", "We ate rice and soup.", *[target for _, target in pairs[:6]]]
    scored = engine.score_batch(
        pieces_of(translator.tokenizer, texts), pieces_of(translator.target_tokenizer, targets)
    )
    search_uncompiled(monkeypatch)
    expected = translator.token_log_probabilities(zip(texts, targets, strict=True))
    for theirs, ours in zip(scored, expected, strict=True):
        np.testing.assert_allclose(theirs.log_probs, ours, rtol=1e-3, atol=1e-3)  # its epsilon


def test_a_folder_of_both_kinds_gives_the_same_logits(spm, pieces, texts, tmp_path):
    """The same arrays, as `.npz` and as safetensors that were written by hand."""
    arrays = random_arrays(len(pieces))
    translator = load(write_distribution(tmp_path / "npz", spm, pieces, arrays), "sinusoidal")
    hugging_face(tmp_path / "hf", spm, pieces, arrays)
    other = load(tmp_path / "hf")
    sources = [[*ids, 3] for ids in translator.tokenizer.encode(texts[:1])]
    inputs = {"source_ids": np.array(sources), "target_ids": np.array([[2, 9, 12, 40]])}
    one, two = (ops.convert_to_numpy(each.models[0](inputs)) for each in (translator, other))
    size = len(pieces) + 2
    np.testing.assert_allclose(one[..., 3:size], two[..., 3:size], atol=2e-4)  # another epsilon


# --- a folder that is written by hand, where transformers is not installed


@pytest.fixture(scope="module")
def arrays(pieces):
    return random_arrays(len(pieces))


REFUSED = {
    "aan": ({"transformer_decoder_autoreg": "average-attention"}, "average attention"),
    "rnn": ({"transformer_decoder_autoreg": "rnn"}, "average attention or a recurrent"),
    "norm on embeddings": ({"transformer_postprocess_emb": "nd"}, "a LayerNorm on the embeddings"),
    "gelu": ({"transformer_ffn_activation": "gelu"}, "expected 'swish' or 'relu'"),
    "depth": ({"transformer_ffn_depth": 3}, "feed-forward networks of another depth"),
    "factors": ({"lemma_dim_emb": 8}, "factored vocabularies"),
    "order": ({"transformer_postprocess": "da"}, "post-norm"),
    "sizes": ({"dim_emb": 48}, "expected"),
    "ensemble": ({"decoder": {"models": ["opus.npz", "opus.npz"]}}, "no ensemble"),
    "binary": ({"decoder": {"models": ["model.bin"]}}, "with .npz in its name"),
    "a path upwards": ({"decoder": {"models": ["../ours/opus.npz"]}}, "not directly in it"),
    "an absolute path": ({"decoder": {"vocabs": ["/etc/v.yml"] * 2}}, "not directly in it"),
}


# Fails if: an option is not looked at.
@pytest.mark.parametrize(("options", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_covered_is_refused_with_the_reason(
    options, reason, spm, pieces, arrays, tmp_path
):
    folder = write_distribution(tmp_path / "ours", spm, pieces, arrays, **options)
    with pytest.raises(ValueError, match=reason):
        load(folder)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "t5"}, "another model"),
        ({"scale_embedding": False}, "without the factor"),
        ({"normalize_embedding": True}, "a LayerNorm on the embeddings"),
        ({"normalize_before": True}, "pre-norm"),
        ({"decoder_ffn_dim": 41}, "one for both"),
        ({"activation_function": "gelu_new"}, "expected one of"),
        ({"d_model": 12}, "expected"),
        ({"encoder_layers": 2}, "lacks the array encoder_l2"),
        ({"decoder_layers": 1}, "26 arrays that a Transformer"),
    ],
)
def test_what_is_not_covered_of_hugging_face_is_refused(
    config, reason, spm, pieces, arrays, tmp_path
):
    with pytest.raises(ValueError, match=reason):
        load(hugging_face(tmp_path, spm, pieces, arrays, **config))


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


# Fails if: np.load may unpickle.
def test_pickles_are_not_loaded(spm, pieces, arrays, tmp_path):
    evil = np.array([Evil(tmp_path / "written")], dtype=object)
    folder = write_distribution(tmp_path / "ours", spm, pieces, arrays | {"Wemb": evil})
    with pytest.raises(ValueError, match="damaged, or no .npz file of plain arrays"):
        load(folder)
    folder = hugging_face(tmp_path / "hf", spm, pieces, arrays)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="may hold code, so it is not read. Convert it"):
        load(folder)
    assert not (tmp_path / "written").exists()


# Fails if: YAML's tags make objects.
def test_yaml_makes_no_objects(spm, pieces, arrays, tmp_path):
    folder = write_distribution(tmp_path / "ours", spm, pieces, arrays)
    tag = f"!!python/object/apply:os.mkdir [{tmp_path / 'made'}]"
    for name in ("decoder.yml", "opus.vocab.yml"):
        before = (folder / name).read_text("utf-8")
        (folder / name).write_text(f"{before}\nevil: {tag}\n", encoding="utf-8")
        if name == "opus.vocab.yml":
            with pytest.raises(ValueError, match="is no vocabulary"):
                load(folder)
    assert not (tmp_path / "made").exists()


def test_a_link_leads_to_a_plain_file_or_is_refused(spm, pieces, arrays, tmp_path):
    """The cache of Hugging Face is made of links. A device would never end."""
    folder = hugging_face(tmp_path / "hf", spm, pieces, arrays)
    (folder / "source.spm").rename(tmp_path / "blob")
    (folder / "source.spm").symlink_to(tmp_path / "blob")
    load(folder)
    for target in ("/dev/zero", tmp_path / "nowhere", tmp_path):
        (folder / "source.spm").unlink()
        (folder / "source.spm").symlink_to(target)
        with pytest.raises(ValueError, match="lacks the file source.spm"):
            load(folder)


DAMAGE = {
    "empty": lambda data: b"",
    "cut": lambda data: data[:-5],
    "a header longer than the file": lambda data: struct.pack("<Q", 2**60) + data[8:],
    "a header that is no JSON": lambda data: data[:8] + b"\xff" + data[9:],
    "negative offsets": lambda data: data.replace(b"[0, ", b"[-9,", 1),
    "another type": lambda data: data.replace(b'"F32"', b'"O32"', 1),
    "another shape": lambda data: data.replace(b'"shape": [24', b'"shape": [99', 1),
}


# Fails if: offsets, shapes or the size of the header are not checked.
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_safetensors_are_errors(damage, spm, pieces, arrays, tmp_path):
    folder = hugging_face(tmp_path, spm, pieces, arrays)
    path = folder / "model.safetensors"
    before = path.read_bytes()
    path.write_bytes(damage(before))
    assert path.read_bytes() != before
    with pytest.raises(ValueError, match="damaged, or no safetensors file"):
        load(folder)


def test_halves_are_read_exactly(tmp_path):
    numbers = np.float32([1, -2.5, 3e-3, 1e30, 0])
    bits = (numbers.view("uint32") >> 16).astype("<u2")
    half = numbers[:3].astype("<f2")
    header = {
        "__metadata__": {"format": "pt"},
        "b": {"dtype": "BF16", "shape": [5], "data_offsets": [0, 10]},
        "h": {"dtype": "F16", "shape": [3, 1], "data_offsets": [10, 16]},
    }
    head = json.dumps(header).encode()
    data = struct.pack("<Q", len(head)) + head + bits.tobytes() + half.tobytes()
    (tmp_path / "a.safetensors").write_bytes(data)
    found = files.read_safetensors(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(found["h"], half.astype("float32")[:, None])
    np.testing.assert_array_equal(found["b"].view("uint32"), bits.astype("uint32") << 16)
    np.testing.assert_allclose(found["b"], numbers, rtol=2**-7)


def test_other_broken_files_are_errors(spm, pieces, arrays, tmp_path):
    folder = hugging_face(tmp_path, spm, pieces, arrays)
    for name, data, reason in (
        ("source.spm", b"no model", "is no SentencePiece model"),
        ("vocab.json", b"[]", "no JSON object"),
        ("vocab.json", b'{"a": 0, "b": 0}', "to several pieces"),
        ("vocab.json", b'{"a": -1}', "at least 0"),
        ("vocab.json", b'{"a": 99999999}', "one above"),
        ("vocab.json", b'{"a": 0}', "has no <unk>"),
        ("vocab.json", json.dumps({str(i): i for i in range(999)}).encode(), "999 pieces"),
        ("config.json", b"{", "is no JSON"),
    ):
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(data)
        with pytest.raises(ValueError, match=reason):
            load(folder)
        (folder / name).write_bytes(before)
    with pytest.raises(FileNotFoundError, match="check the path"):
        load(tmp_path / "nowhere")
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match="neither config.json"):
        load(folder)
    with pytest.raises(ValueError, match="positions is one of"):
        load(folder, "rotary")


# --- runs


@pytest.fixture(scope="module")
def run(spm, pieces, arrays, tmp_path_factory):
    """A run that the command made."""
    path = tmp_path_factory.mktemp("runs")
    folder = hugging_face(path / "model", spm, pieces, arrays)
    before = {each.name: each.read_bytes() for each in folder.iterdir()}
    assert cli.main(["import", str(folder), "--run-dir", str(path / "run")]) == 0
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == before
    assert sorted(each.name for each in path.iterdir()) == ["model", "run"]
    return path / "run"


def same(translator, other, texts):
    inputs = {
        "source_ids": np.array([[*ids, 3] for ids in translator.tokenizer.encode(texts[:1])]),
        "target_ids": np.array([[2, 9, 12, 40]]),
    }
    one, two = (ops.convert_to_numpy(each.models[0](inputs)) for each in (translator, other))
    np.testing.assert_array_equal(one, two)
    assert translator.tokenizer.encode(texts) == other.tokenizer.encode(texts)


def test_an_imported_run_is_the_model(run, texts):
    translator = load_translator(run)
    same(translator, load(run.parent / "model"), texts)
    assert language_tags(translator.tokenizer) == TAGS
    assert RunDirectory.open(run).settings["imported_from"] == os.path.abspath(run.parent / "model")


def test_the_command_names_the_tags_and_overwrites_nothing(run, capsys):
    before = {each: each.read_bytes() for each in run.iterdir() if each.is_file()}
    model = str(run.parent / "model")
    assert cli.main(["import", model, "--run-dir", str(run)]) == 1
    assert "exists and is not overwritten" in capsys.readouterr().err
    assert {each: each.read_bytes() for each in run.iterdir() if each.is_file()} == before
    new = run.parent / "learned"
    assert cli.main(["import", model, "--run-dir", str(new), "--positions", "learned"]) == 0
    said = capsys.readouterr().err
    assert "2 tags name a target language" in said and ">>eng<<, >>deu<<" in said
    assert "--length-penalty average" in said


@pytest.fixture
def short(monkeypatch):
    search_uncompiled(monkeypatch)


@pytest.mark.slow
def test_every_verb_reads_an_imported_run(run, pairs, texts, short, tmp_path, monkeypatch, capsys):
    translator = load_translator(run)
    for name, side in zip(SIDES, zip(*pairs[:2], strict=True), strict=True):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in side), encoding="utf-8")
    source, target = (str(tmp_path / name) for name in SIDES)
    lines = "\n".join(texts[:2]).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert cli.main(["translate", str(run), "--beam-size", "1"]) == 0
    expected = translator.translate(texts[:2], beam_size=1)
    assert capsys.readouterr().out.splitlines() == expected
    options = ["--source", source, "--reference", target, "--beam-size", "1"]
    assert cli.main(["evaluate", str(run), *options]) == 0
    assert json.loads(capsys.readouterr().out)["sentences"] == 2
    assert cli.main(["score", str(run), "--source", source, "--target", target]) == 0
    found = [float(line.split()[0]) for line in capsys.readouterr().out.splitlines()]
    np.testing.assert_allclose(found, [s for s, _ in translator.score(pairs[:2])], rtol=1e-4)


@pytest.mark.slow
def test_an_imported_run_is_quantised(run, texts, tmp_path):
    new = tmp_path / "int8"
    assert cli.main(["quantize", str(run), "--to", "int8", "--run-dir", str(new)]) == 0
    pairs = [(text, "I go home") for text in texts[:3]]
    before, after = (
        np.array([score for score, _ in load_translator(each).score(pairs)]) for each in (run, new)
    )
    np.testing.assert_allclose(after, before, rtol=0.1)
    assert (after != before).all()


@pytest.mark.slow
def test_show_explains_an_imported_run(run, short, tmp_path, capsys):
    options = ["--target", "I go home", "--output", str(tmp_path / "page")]
    assert cli.main(["show", str(run), "나는 집에 간다", *options]) == 0
    assert (tmp_path / "page" / "index.html").exists()


def test_an_imported_run_goes_on_to_ctranslate2(run, texts, tmp_path):
    ctranslate2 = pytest.importorskip("ctranslate2", reason="ctranslate2 is not installed")
    translator = load_translator(run)
    interop.to_ctranslate2(translator, tmp_path / "export")
    engine = ctranslate2.Translator(str(tmp_path / "export"), intra_threads=1)
    targets = [translator.target_tokenizer.pieces("I go home")] * len(texts)
    sources = [translator.tokenizer.pieces(text) for text in texts]
    scored = engine.score_batch(sources, targets)
    expected = translator.token_log_probabilities([(text, "I go home") for text in texts])
    for result, log_probs in zip(scored, expected, strict=True):
        np.testing.assert_allclose(result.log_probs, log_probs, atol=1e-3)


@pytest.mark.slow
def test_training_starts_from_an_imported_run(run, pairs, short, tmp_path, capsys):
    keras.backend.clear_session()
    tsv = tmp_path / "pairs.tsv"
    tsv.write_text("".join(f"{s}\t{t}\n" for s, t in pairs[:40]), encoding="utf-8")
    options = f"--train-tsv {tsv} --hold-out 4 --updates 2 --warmup-steps 10 --learning-rate 1e-9"
    options += " --tokens-per-batch 256 --average 0 --bleu-every 9 --jit off"
    command = ["train", "--init-from", str(run), "--run-dir", str(tmp_path / "new")]
    assert cli.main([*command, *options.split()]) == 0
    translator, tuned = load_translator(run), load_translator(tmp_path / "new")
    for name in ("tokenizer", "target_tokenizer"):
        assert getattr(tuned, name).model_proto == getattr(translator, name).model_proto
    weights = [each.models[0].get_weights() for each in (translator, tuned)]
    for before, after in zip(*weights, strict=True):
        np.testing.assert_allclose(after, before, atol=1e-6)
    assert any((a != b).any() for a, b in zip(*weights, strict=True))
