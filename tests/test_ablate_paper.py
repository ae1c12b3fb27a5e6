"""Tests of the recipe of Table 3: rows keep the paper's ratios, and verdicts follow the figures."""

import json
import math
import random

import ablate_paper
import ablation_report
import keras
import pytest
from ablation_report import BLEU, PERPLEXITY, judge
from ablation_rows import Scale, scaled, scaled_rows, setting_of

import keras_transformer as kt
from keras_transformer.models import PRESETS, TABLE_3, Transformer

pytestmark = pytest.mark.tensorflow_only

# --- rows

BASE = PRESETS["base"]
PAPER = Scale(6, 512, 8, 2048, 0.1, 256)


@pytest.mark.parametrize("name", TABLE_3)
def test_at_the_papers_own_scale_a_row_is_the_papers(name):
    assert scaled(TABLE_3[name], PAPER) == PRESETS[name]


# Fails if: sizes are scaled from those of the base instead of the row's own.
@pytest.mark.parametrize("name", TABLE_3)
def test_a_row_is_to_the_small_base_as_to_the_papers(name):
    """The sizes have other ratios than the paper's, so a size in the wrong place is noticed."""
    scale = Scale(num_layers=9, d_model=192, num_heads=24, d_ff=320, dropout=0.2, max_length=61)
    options = scaled(TABLE_3[name], scale)
    expected = {**BASE, **TABLE_3[name].changes}
    for size in ("num_layers", "num_heads", "d_ff", "d_model"):
        assert options[size] * BASE[size] == getattr(scale, size) * expected[size]
    assert options["dropout"] * 0.1 == pytest.approx(0.2 * expected["dropout"])
    for width in ("key_dim", "value_dim"):
        assert options.get(width) == (expected[width] * 8 // 64 if width in expected else None)
    assert options.get("positions") == expected.get("positions")
    assert options.get("max_length") == (61 if name.startswith("E") else None)
    assert set(options) == set(expected)


@pytest.mark.parametrize("defaults", [ablate_paper.FULL, ablate_paper.QUICK])
def test_every_row_fits_the_recipes_scales(defaults):
    d_model = defaults["d_model"]
    rows, misfits = scaled_rows(TABLE_3, Scale(3, d_model, d_ff=4 * d_model))
    assert list(rows) == list(TABLE_3) and not misfits
    # Smoothing is no argument of the model, so exactly the two rows of smoothing equal the base.
    assert len({json.dumps(options) for options in rows.values()}) == len(TABLE_3) - 2


@pytest.mark.parametrize("name", ["A-heads-32", "B-key-dim-16", "big", "E-learned-positions"])
def test_a_row_is_a_model_with_the_sizes_it_names(name):
    options = scaled(TABLE_3[name], Scale(num_layers=3, d_model=64, d_ff=256))
    model = Transformer(11, **{**options, "num_layers": 1})
    layer, shown = model.encoder.layers[0], setting_of(name, options)
    attention = model.decoder.layers[0].cross_attention
    assert (layer.d_ff, layer.dropout) == (shown["d_ff"], shown["dropout"])
    for size in ("num_heads", "key_dim", "value_dim"):
        assert getattr(attention, size) == shown[size]
    assert model.source_embedding.positions == shown["positions"]


def test_what_does_not_divide_is_said_by_row():
    rows, misfits = scaled_rows(TABLE_3, Scale(num_layers=4, d_model=40, num_heads=5, d_ff=20))
    assert set(misfits) == {"C-layers-2", "C-layers-4", "C-layers-8", "A-heads-1", "A-heads-4"}
    assert len(rows) + len(misfits) == len(TABLE_3)
    assert "num_layers is 2 where the base's is 6, and that share of 4" in str(
        misfits["C-layers-2"]
    )
    with pytest.raises(ValueError, match="d_model of 24 does not divide into 16 heads"):
        scaled(TABLE_3["A-heads-16"], Scale(3, 24, 8, 96))
    with pytest.raises(ValueError, match="dropout is 1.2"):
        scaled(TABLE_3["big"], Scale(dropout=0.4))


# --- judging


def papers(metric, seeds=3):
    return {name: [getattr(row, metric.name)] * seeds for name, row in TABLE_3.items()}


@pytest.mark.parametrize("metric", [PERPLEXITY, BLEU])
def test_all_of_the_paper_is_seen_in_the_papers_own_figures(metric):
    judged = judge(papers(metric), metric)
    assert set(judged) == set(TABLE_3) - {"base"}
    assert {each.verdict for each in judged.values()} == {"seen"}
    concluded = ablation_report.conclude(judged)
    assert list(concluded) == list(ablation_report.CONCLUSIONS)
    assert {verdict for verdict, _ in concluded.values()} == {"seen"}


def test_each_row_stands_for_one_conclusion():
    rows = [name for names in ablation_report.CONCLUSIONS.values() for name in names]
    assert sorted(rows) == sorted(set(TABLE_3) - {"base"})


# Fails if: rounding counts as a direction; lower and higher are swapped.
@pytest.mark.parametrize(
    ("name", "perplexity", "bleu"),
    [
        ("D-smoothing-0", "lower", "lower"),  # smoothing worsens perplexity and improves BLEU
        ("D-smoothing-0.2", "higher", "equal"),
        ("C-layers-8", "lower", "lower"),
        ("E-learned-positions", "equal", "equal"),
        ("A-heads-16", "equal", "equal"),
        ("A-heads-32", "higher", "lower"),
        ("D-dropout-0", "higher", "lower"),
        ("big", "lower", "higher"),
    ],
)
def test_the_direction_is_that_of_the_papers_figures_for_each_metric(name, perplexity, bleu):
    expected = ablation_report.expected
    assert (expected(name, PERPLEXITY), expected(name, BLEU)) == (perplexity, bleu)


# Fails if: perplexities are compared without logarithms.
@pytest.mark.parametrize("metric", [PERPLEXITY, BLEU])
def test_nothing_directed_is_seen_in_the_paper_turned_round(metric):
    figures = papers(metric)
    [base, *_] = figures["base"]
    judged = judge(
        {name: [base * base / x for x in each] for name, each in figures.items()}, metric
    )
    for name, judgement in judged.items():
        equal = ablation_report.expected(name, metric) == "equal"
        assert judgement.verdict == ("seen" if equal else "not seen"), name


# Fails if: the noise ignores the number of seeds.
def test_noise_is_the_interval_of_students_t_with_the_deviation_of_all_rows():
    figures = {"base": [30.0, 31.0], "A-heads-1": [28.0, 30.0, 32.0], "A-heads-32": [29.0]}
    judged = judge(figures, BLEU)
    deviation = math.sqrt((2 * 0.5**2 + 2 * 2**2) / 3)  # 5 - 2 degrees of freedom, of two rows
    assert judged["A-heads-1"].noise == pytest.approx(3.182 * deviation * math.sqrt(1 / 3 + 1 / 2))
    assert judged["A-heads-32"].noise == pytest.approx(3.182 * deviation * math.sqrt(1 + 1 / 2))
    assert judged["A-heads-1"].difference == pytest.approx(-0.5)


@pytest.mark.parametrize(
    ("bleu", "verdict"),
    [(28.7, "seen"), (29.1, "undecided"), (30.9, "undecided"), (31.3, "not seen")],
)
def test_within_the_noise_of_seeds_nothing_is_decided(bleu, verdict):
    """With a deviation of 0.25 and 2 degrees of freedom the noise is 4.303 * 0.25 = 1.08."""
    spread = 0.25 / math.sqrt(2)
    figures = {"base": [30 - spread, 30 + spread], "A-heads-1": [bleu - spread, bleu + spread]}
    judgement = judge(figures, BLEU)["A-heads-1"]
    assert judgement.noise == pytest.approx(4.303 * 0.25)
    assert judgement.verdict == verdict


# Fails if: one seed needs no margin.
@pytest.mark.parametrize(
    ("bleu", "verdict"), [(28.9, "seen"), (29.1, "undecided"), (31.1, "not seen")]
)
def test_one_seed_decides_beyond_a_stated_margin_only(bleu, verdict):
    judgement = judge({"base": [30.0], "A-heads-1": [bleu]}, BLEU)["A-heads-1"]
    assert (judgement.noise, judgement.verdict) == (1.0, verdict)


# Fails if: the band is half as wide.
@pytest.mark.parametrize(
    ("perplexity", "spread", "verdict"),
    [
        (5.05, 0.0001, "seen"),
        (5.05, 0.05, "undecided"),  # near, but the noise reaches beyond 2 %
        (5.15, 0.0001, "not seen"),
        (4.85, 0.0001, "not seen"),
        (5.15, 0.05, "undecided"),
    ],
)
def test_about_equal_asks_for_figures_that_are_near_and_sure(perplexity, spread, verdict):
    figures = {"base": [5.0 - spread, 5.0 + spread]}
    figures["E-learned-positions"] = [perplexity - spread, perplexity + spread]
    assert judge(figures, PERPLEXITY)["E-learned-positions"].verdict == verdict


def test_students_t():
    for freedom, point in ((1, 12.71), (10, 2.228), (11, 2.201), (20, 2.086), (60, 2.000)):
        assert ablation_report.student(freedom) == pytest.approx(point, abs=3e-3)


# Fails if: a conclusion is seen although one of its rows is not.
def test_a_conclusion_is_its_rows():
    def conclude(*verdicts):
        names = ("B-key-dim-16", "B-key-dim-32")[: len(verdicts)]
        judged = {
            name: ablation_report.Judgement("lower", 0, 0, verdict)
            for name, verdict in zip(names, verdicts, strict=True)
        }
        return ablation_report.conclude(judged)

    assert conclude("seen", "seen") == {"smaller keys are worse": ("seen", ["seen", "seen"])}
    assert conclude("seen")["smaller keys are worse"][0] == "seen"
    assert conclude("seen", "undecided")["smaller keys are worse"][0] == "undecided"
    assert conclude("undecided", "not seen")["smaller keys are worse"][0] == "not seen"


# --- the run


@pytest.fixture
def text(tmp_path):
    """Writes words, and their reversed spellings, to files with Multi30k's names."""
    rng = random.Random(11)
    folder = tmp_path / "text"
    folder.mkdir()
    for name, count in (("train", 60), ("val", 5)):
        sources = [" ".join(rng.choices("ba be bo da de do".split(), k=3)) for _ in range(count)]
        targets = [" ".join(word[::-1] for word in source.split()) for source in sources]
        for language, lines in (("en", sources), ("de", targets)):
            text = "".join(f"{line}\n" for line in lines)
            (folder / f"{name}.{language}").write_text(text, encoding="utf-8")
    return folder


def ablate(text, run, *options):
    small = "--layers 1 --d-model 32 --vocabulary-size 280 --updates 4 --validate-every 2".split()
    small += ["--warmup-steps", "3", "--tokens-per-batch", "128", "--beam-size", "1"]
    ablate_paper.main(["--data", str(text), "--run-dir", str(run), *small, *options])


def session_groups(run):
    """Returns the rows of TensorBoard's HParams table, from its own server."""
    from tensorboard import context
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    multiplexer = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(run))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(run))
    backend = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    request = api_pb2.ListSessionGroupsRequest(
        slice_size=100,
        allowed_statuses=[api_pb2.STATUS_SUCCESS],
        aggregation_type=api_pb2.AGGREGATION_AVG,
        include_metrics=True,
    )
    handler = list_session_groups.Handler(context.RequestContext(), backend, "", request)
    return {group.name: group for group in handler.run().session_groups}


# Fails if: a finished row is trained again; resuming starts at update 0; another number of updates
# is accepted; HParams does not group the seeds of a row, or shows another figure.
def test_killed_and_resumed_it_trains_what_is_left_and_reports(
    text, tmp_path, monkeypatch, uncompiled, capsys
):
    run, rows = tmp_path / "run", ["--rows", "C-d-ff-1024", "--seeds", "1", "2"]
    save = kt.RunDirectory.save_checkpoint

    def killed_in_the_third(self, model, update, state):
        save(self, model, update, state)
        if self.path == run / "base" / "seed-2":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(kt.RunDirectory, "save_checkpoint", killed_in_the_third)
        with pytest.raises(SystemExit) as stopped:
            ablate(text, run, *rows)
    assert stopped.value.code == 130
    assert "the same command continues" in capsys.readouterr().err
    folders = [run / name / f"seed-{n}" for n in (1, 2) for name in ("base", "C-d-ff-1024")]
    assert [(folder / "result.json").exists() for folder in folders] == [True, True, False, False]
    vocabulary = (run / "tokenizer.model").stat()

    with monkeypatch.context() as patch:
        patch.setattr(kt.text, "train_tokenizer", None)  # the vocabulary is not trained again
        ablate(text, run, *rows)
    printed = capsys.readouterr().out
    starts = [len(json.loads((folder / "versions.json").read_text())) for folder in folders]
    assert starts == [1, 1, 2, 1]
    for folder in folders:
        log = kt.RunDirectory.open(folder).read_log()
        assert [each["update"] for each in log if each["event"] == "validation"] == [2, 4]
    assert (run / "tokenizer.model").stat().st_mtime_ns == vocabulary.st_mtime_ns

    # The training that was stopped equals one that never was.
    ablate(text, tmp_path / "other", "--rows", "base", "--seeds", "2")
    results = [json.loads((folder / "result.json").read_text()) for folder in folders]
    alone = json.loads((tmp_path / "other" / "base" / "seed-2" / "result.json").read_text())
    assert results[2]["perplexity"] == pytest.approx(alone["perplexity"], rel=1e-4)
    assert results[0]["perplexity"] != pytest.approx(results[2]["perplexity"], rel=1e-4)

    summary = json.loads((run / "table3.json").read_text())
    assert summary["settings"]["search"] == "greedy"
    for number, name in enumerate(("base", "C-d-ff-1024")):
        row = summary["rows"][name]
        figures = [results[number + offset]["perplexity"] for offset in (0, 2)]
        assert row["perplexity"]["figures"] == figures and row["seeds"] == [1, 2]
        assert row["perplexity"]["mean"] == pytest.approx(sum(figures) / 2)
        deviation = abs(figures[0] - figures[1]) / math.sqrt(2)
        assert row["perplexity"]["deviation"] == pytest.approx(deviation)
        assert row["bleu"]["paper"] == TABLE_3[name].bleu
        model = kt.RunDirectory.open(run / name / "seed-1").load_model()
        assert row["parameters"] == model.count_params()
        *_, line = [line for line in printed.splitlines() if line.startswith(f"{name} ")]
        for figure in (f"{row['parameters']:,}", f"{row['perplexity']['mean']:.2f}"):
            assert figure in line
        assert f"{TABLE_3[name].perplexity:.2f}" in line and f"{TABLE_3[name].bleu:.1f}" in line
    assert summary["rows"]["C-d-ff-1024"]["perplexity"]["expected"] == "higher"
    assert "larger models are better" in printed
    assert printed.endswith((run / "table3.txt").read_text() + "\n")
    assert (run / "table3.png").read_bytes().startswith(b"\x89PNG")

    groups = session_groups(run)
    assert set(groups) == {"base", "C-d-ff-1024"}
    for name, group in groups.items():
        assert [session.name for session in group.sessions] == [f"{name}/seed-{n}" for n in (1, 2)]
        shown = {metric.name.tag: metric.value for metric in group.metric_values}
        for metric in ("perplexity", "bleu"):
            mean = summary["rows"][name][metric]["mean"]
            assert shown[metric] == pytest.approx(mean, rel=1e-5)
        assert len(shown) == 2
        assert group.hparams["d_ff"].number_value == {"base": 128}.get(name, 64)
        assert group.hparams["row"].string_value == name

    # The settings of a training may not change. The same rows again train nothing.
    for changed in (["--updates", "6"], ["--norm", "post"], ["--precision", "bfloat16"]):
        with pytest.raises(SystemExit, match="holds a run with other settings"):
            ablate(text, run, *rows, *changed)
    capsys.readouterr()
    monkeypatch.setattr(keras.Model, "fit", None)
    ablate(text, run, *rows)
    assert capsys.readouterr().out == printed


# Fails if: all seeds draw the same weights.
def test_each_seed_draws_its_own_first_weights(text, tmp_path, monkeypatch, uncompiled):
    monkeypatch.setattr(ablate_paper, "updates_of", lambda name, args: 0)
    ablate(text, tmp_path / "run", "--rows", "base", "--seeds", "1", "2")
    results = [
        json.loads((tmp_path / f"run/base/seed-{n}/result.json").read_text()) for n in (1, 2)
    ]
    assert results[0]["perplexity"] != pytest.approx(results[1]["perplexity"], rel=1e-6)


def test_what_cannot_be_run_is_said(text, tmp_path, capsys):
    for options, message in (
        (["--rows", "C-layers-2"], "row C-layers-2 does not fit"),
        (["--rows", "base", "--data", str(tmp_path / "none")], "no such file"),
        (["--rows", "base", "--tokenize", "13b"], "Unknown tokenizer '13b'"),
    ):
        with pytest.raises(SystemExit) as stopped:
            ablate(text, tmp_path / "run", *options)
        assert message.split(" does")[0] in str(stopped.value.code)
    for options, message in (
        (["--updates", "5"], "--updates 5 is no multiple of --validate-every 2"),
        (["--train-source", "a"], "give all of --train-source"),
        (["--rows", "huge"], "invalid choice: 'huge'"),
    ):
        with pytest.raises(SystemExit):
            ablate(text, tmp_path / "run", *options)
        assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_any_parallel_text_can_be_given(text):
    files = [str(text / f"{part}.{side}") for part in ("train", "val") for side in ("de", "en")]
    options = [f"--{name.replace('_', '-')}" for name in ablate_paper.FILES]
    given = [word for pair in zip(options, files, strict=True) for word in pair]
    args = ablate_paper.parse(given)
    train, valid = ablate_paper.read(args)
    assert (len(train), len(valid), args.tokenize) == (60, 5, "13a")
    assert train == kt.data.read_parallel(files[0], files[1])


# Fails if: --quick overrides the options that are given.
def test_quick_is_another_set_of_defaults_that_options_still_change():
    quick, full = ablate_paper.parse(["--quick"]), ablate_paper.parse([])
    assert (quick.d_model, quick.seeds, quick.beam_size) == (64, [1], 1)
    assert (full.d_model, full.seeds, full.beam_size) == (128, [1, 2], 4)
    assert ablate_paper.parse(["--quick", "--d-model", "128"]).d_model == 128


def test_big_trains_as_much_longer_as_the_papers_but_not_when_quick():
    assert ablate_paper.updates_of("big", ablate_paper.parse(["--updates", "500"])) == 1500
    assert ablate_paper.updates_of("base", ablate_paper.parse(["--updates", "500"])) == 500
    assert ablate_paper.updates_of("big", ablate_paper.parse(["--quick"])) == 1500


def test_rows_have_the_settings_that_tensorboard_shows():
    rows, _ = scaled_rows(TABLE_3, Scale())
    shown = {name: setting_of(name, options) for name, options in rows.items()}
    assert len({tuple(each) for each in map(sorted, shown.values())}) == 1
    assert shown["A-heads-4"]["key_dim"] == 32 and shown["B-key-dim-16"]["key_dim"] == 4
    assert shown["D-smoothing-0"]["label_smoothing"] == 0.0
    assert shown["E-learned-positions"]["positions"] == "learned"
