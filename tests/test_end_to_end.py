"""Tests from text to text: a model that learns eight sentences by heart, and README's example."""

from pathlib import Path

import keras
import pytest

import keras_transformer as kt

PAIRS = [
    ("오늘은 날씨가 참 좋네요.", "The weather is really nice today."),
    ("저는 아침마다 커피를 마셔요.", "I drink coffee every morning."),
    ("그 책은 어디에서 샀어요?", "Where did you buy that book?"),
    ("동생이 아직 자고 있어요.", "My little brother is still sleeping."),
    ("내일 다시 전화할게요.", "I'll call you again tomorrow."),
    ("ㅋㅋㅋ 정말 재미있다!", "Haha, that's really funny!"),
    ("우리는 기차를 놓쳤습니다.", "We missed the train."),
    ("문을 닫아 주세요.", "Please close the door."),
]


def test_eight_pairs_are_learnt_by_heart():
    """Uses every part in its real role: BLEU 100 needs every mask, shift and id to be right."""
    sources, references = map(list, zip(*PAIRS, strict=True))
    tokenizer = kt.text.train_tokenizer(PAIRS, vocabulary_size=380)
    batches = kt.data.token_batches(PAIRS, tokenizer, tokens_per_batch=512)
    model = kt.models.Transformer(
        tokenizer.vocabulary_size,
        num_layers=1,
        d_model=64,
        num_heads=4,
        d_ff=128,
        dropout=0.0,
        norm="pre",
    )
    model.compile(
        optimizer=kt.optimizers.PaperAdam(
            learning_rate=kt.optimizers.schedules.PaperSchedule.with_peak(3e-3, warmup_steps=40)
        ),
        loss=kt.losses.SmoothedCrossentropy(label_smoothing=0.0),
        weighted_metrics=[kt.metrics.NatsPerToken(), kt.metrics.TokenAccuracy()],
    )
    logs = model.fit(batches, epochs=1, steps_per_epoch=400, verbose=0).history
    translator = kt.Translator(model, tokenizer)
    hypotheses = translator.translate(sources, beam_size=2, batch_size=4)
    assert hypotheses == references, logs
    assert kt.evaluation.bleu(hypotheses, references).value == pytest.approx(100)
    # The translation depends on the source: sentences in another order give another result.
    assert translator.translate(sources[::-1], beam_size=2, batch_size=4) == references[::-1]


# Parts of the example that need a large file, a large model or time -> their replacement here.
SHRUNK = {
    '"train.en"': "str(folder / 'train.en')",
    '"train.de"': "str(folder / 'train.de')",
    '"logs"': "str(folder / 'logs')",
    "vocabulary_size=10_000": "vocabulary_size=380",
    "tokens_per_batch=4096": "tokens_per_batch=512",
    "vocabulary_size=tokenizer.vocabulary_size": "vocabulary_size=tokenizer.vocabulary_size, "
    "num_layers=1, d_model=32, d_ff=64",
    "epochs=10, steps_per_epoch=500": "epochs=1, steps_per_epoch=2",
    "beam_size=4": "beam_size=1",
}


@pytest.mark.tensorflow_only
def test_the_example_in_the_readme_runs_as_written(tmp_path, capsys):
    readme = Path(__file__).parents[1] / "README.md"
    if not readme.exists():
        pytest.skip("there is no README.md")
    code = readme.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    for old, new in SHRUNK.items():
        assert old in code, f"README.md no longer has {old}. Update SHRUNK."
        code = code.replace(old, new)
    for name, side in (("train.de", 0), ("train.en", 1)):
        text = "".join(f"{pair[side]}\n" for pair in PAIRS)
        (tmp_path / name).write_text(text, encoding="utf-8")
    names = {"folder": tmp_path}
    exec(compile(code, str(readme), "exec"), names)
    assert isinstance(names["model"], keras.Model) and names["model"].optimizer.iterations == 2
    assert list((tmp_path / "logs").rglob("events.out.tfevents*"))
    # The last line prints the translation of one sentence.
    assert capsys.readouterr().out.strip().splitlines()[-1].startswith("[")
