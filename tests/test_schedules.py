"""Laws of the paper's learning-rate schedule."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_transformer.optimizers.schedules import PaperSchedule


def rate(schedule, step):
    return float(keras.ops.convert_to_numpy(schedule(step)))


@given(
    step=st.integers(1, 400_000),
    d_model=st.sampled_from([12, 512, 1024]),
    warmup=st.sampled_from([1, 997, 4000]),
    scale=st.sampled_from([1.0, 0.3]),
)
def test_it_is_the_papers_formula(step, d_model, warmup, scale):
    expected = scale * d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)
    np.testing.assert_allclose(
        rate(PaperSchedule(d_model, warmup, scale), step), expected, rtol=1e-5
    )


def test_it_rises_to_its_peak_at_warmup_steps_and_falls():
    schedule = PaperSchedule(d_model=13, warmup_steps=37)
    rates = [rate(schedule, step) for step in range(0, 101)]
    assert rates[0] == 0
    assert np.argmax(rates) == 37
    assert (np.diff(rates[:38]) > 0).all() and (np.diff(rates[37:]) < 0).all()


def test_the_papers_own_peak():
    assert rate(PaperSchedule(512), 4000) == pytest.approx(6.9877e-4, rel=1e-4)


@given(peak=st.floats(1e-5, 1.0), warmup=st.integers(1, 9000))
def test_with_peak_has_that_highest_rate(peak, warmup):
    schedule = PaperSchedule.with_peak(peak, warmup)
    assert rate(schedule, warmup) == pytest.approx(peak, rel=1e-5)
    assert rate(schedule, warmup + 1) < peak and rate(schedule, warmup - 1) < peak
    assert rate(schedule, 4 * warmup) == pytest.approx(peak / 2, rel=1e-5)


def test_the_step_may_be_any_integer_tensor():
    schedule = PaperSchedule(13, 37)
    variable = keras.Variable(5, trainable=False)
    for step in (5, np.int64(5), keras.ops.convert_to_tensor(5, "int32"), variable):
        assert rate(schedule, step) == rate(schedule, 5.0)


def test_serialization_round_trip():
    schedule = PaperSchedule(13, 37, scale=0.7)
    config = keras.optimizers.schedules.serialize(schedule)
    copy = keras.optimizers.schedules.deserialize(config)
    assert type(copy) is PaperSchedule and copy.get_config() == schedule.get_config()
    assert rate(copy, 11) == rate(schedule, 11)


@pytest.mark.parametrize("sizes", [(0, 4000), (512, 0)])
def test_sizes_are_at_least_one(sizes):
    with pytest.raises(ValueError, match="at least 1.*d_model=.*warmup_steps="):
        PaperSchedule(*sizes)


@pytest.mark.parametrize("peak", [-0.1, float("nan"), float("inf")])
def test_a_peak_that_is_no_rate_is_refused(peak):
    # Fails if: a rate below 0 climbs the loss, or NaN is multiplied into every weight.
    with pytest.raises(ValueError, match="scale is a number and at least 0"):
        PaperSchedule.with_peak(peak, warmup_steps=10)
