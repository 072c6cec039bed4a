import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from shardstream.ingest.common.cpu_limits import usable_cores
from shardstream.ingest.common.errors import DatasetError
from shardstream.train.data.dataset import Dataset
from shardstream.train.distributed.strategy import precision_scope, set_seed
from shardstream.train.engine.evaluation import evaluate
from shardstream.train.engine.loop import DivergedError, Loop
from shardstream.train.engine.progress import Progress
from shardstream.train.engine.trainer import Metrics, Trainer
from shardstream.train.engine.training_data import make_training_data
from shardstream.train.models.phases import compile_phase
from shardstream.train.runs.callbacks import COLUMNS

BATCH = 16


def make_steps(policy: str = "float32", learning_rate: float = 0.01, **options) -> Trainer:
    set_seed(0)
    with precision_scope(policy):
        # As few layers as have all kinds of state: weights, moving averages, the seed of a dropout. What
        # takes time here is tracing, which goes by the number of layers.
        model = keras.Sequential(
            [
                keras.Input((16, 16, 3)),
                keras.layers.Rescaling(1 / 127.5, offset=-1),
                keras.layers.Conv2D(16, 5, strides=2, activation="relu"),
                keras.layers.BatchNormalization(momentum=0.5),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dropout(0.1, seed=3),
                keras.layers.Dense(3, activation="softmax", dtype="float32"),
            ]
        )
        phases = [compile_phase(model, keras.optimizers.Adam(learning_rate))]
    return Trainer(
        model, tf.distribute.get_strategy(), **{"phases": phases, "label_smoothing": 0.0, **options}
    )


def make_loop(steps, info, *, epochs=2, callbacks=(), tier="memory", **options) -> Loop:
    return Loop(
        steps,
        make_training_data(Dataset(info), batch_size=BATCH, seed=1, cache=tier),
        epochs=epochs,
        callbacks=callbacks,
        **options,
    )


class Recorder(keras.callbacks.Callback):
    """Writes down every call that the loop makes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.epochs: list[dict] = []

    def on_train_begin(self, logs=None):
        self.calls.append("begin")

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(f"epoch {epoch}")

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(f"end of epoch {epoch}")
        self.epochs.append(dict(logs))

    def on_train_end(self, logs=None):
        self.calls.append("end")


class BatchRecorder(Recorder):
    def on_train_batch_end(self, batch, logs=None):
        self.calls.append(f"batch {batch}")
        self.epochs.append(dict(logs))


@pytest.fixture(scope="module")
def run(striped):
    """A run of two epochs, watched; 192 pictures make 12 steps."""
    steps, recorder = make_steps(), BatchRecorder()
    make_loop(steps, striped, callbacks=[recorder]).run()
    return steps, recorder


def test_callbacks_are_called_as_in_fit(run):
    _, recorder = run
    epochs = [[f"epoch {e}", *(f"batch {i}" for i in range(12)), f"end of epoch {e}"] for e in range(2)]
    assert recorder.calls == ["begin", *epochs[0], *epochs[1], "end"]


def test_every_batch_has_figures_for_those_who_look(run):
    _, recorder = run
    batches = recorder.epochs[:12]
    assert all(sorted(logs) == ["accuracy", "loss"] for logs in batches)
    assert batches[-1]["loss"] < batches[0]["loss"]


def test_an_epoch_has_all_figures(run):
    _, recorder = run
    first, last = recorder.epochs[12], recorder.epochs[-1]
    assert sorted(last) == sorted(set(COLUMNS) - {"epoch"})
    assert last["images_per_sec_per_core"] == pytest.approx(last["images_per_sec"] / usable_cores())
    assert 0 < last["input_wait"] < 1
    assert last["loss"] < first["loss"]
    assert last["learning_rate"] == pytest.approx(0.01)
    assert last["images_per_sec"] == pytest.approx(192 / last["train_secs"])


def test_evaluation_agrees_with_numpy(run, striped):
    """50 pictures in batches of 16: the last batch is padded, and black pictures count for nothing."""
    steps, recorder = run
    data = Dataset(striped)
    (batch,) = data.eval_batches("validation", batch_size=50)
    images, labels, _ = (tensor.numpy() for tensor in batch)
    probabilities = steps.model.predict(images, verbose=0)
    losses = -np.log(probabilities[np.arange(50), labels])
    padded = data.eval_batches("validation", batch_size=BATCH, pad_last_batch=True)
    result = evaluate(steps, padded, num_examples=50)
    assert result.num_examples == 50
    assert result.loss == pytest.approx(losses.mean(), rel=1e-5)
    assert result.accuracy == pytest.approx((probabilities.argmax(1) == labels).mean())
    assert recorder.epochs[-1]["val_loss"] == pytest.approx(result.loss, rel=1e-6)


def test_evaluation_that_did_not_see_all_is_an_error(run, striped, monkeypatch):
    steps, _ = run
    padded = Dataset(striped).eval_batches("validation", batch_size=BATCH, pad_last_batch=True)
    monkeypatch.setattr(Metrics, "num_seen", lambda self: 49)
    with pytest.raises(DatasetError, match=r"evaluated 49 examples of a split that has 50$"):
        evaluate(steps, padded, num_examples=50)


def test_the_shown_loss_is_the_plain_cross_entropy(striped):
    """Without a change of weights, smoothing does not show."""
    shown = []
    for smoothing in (0.0, 0.5):
        recorder = Recorder()
        make_loop(
            make_steps(learning_rate=1e-12, label_smoothing=smoothing),
            striped,
            epochs=1,
            callbacks=[recorder],
        ).run()
        shown.append(recorder.epochs[0]["loss"])
    assert shown[0] == pytest.approx(shown[1], rel=1e-5)


def weights_after(striped, tier, *parts: tuple[Progress, int]) -> np.ndarray:
    """Trains the parts (from where, up to which epoch), the state carried over by hand into new steps."""
    state = None
    for start, epochs in parts:
        steps = make_steps()
        if state:
            steps.restore(state)
        make_loop(steps, striped, epochs=epochs, tier=tier).run(start)
        state = steps.state()
    return np.concatenate([np.ravel(value) for value in state.values()])


@pytest.mark.parametrize("tier", ["none", pytest.param("memory", marks=pytest.mark.slow)])
def test_a_run_in_two_parts_ends_as_a_run_in_one(striped, tier):
    """All state is in `Trainer.variables()` and the position."""
    whole = weights_after(striped, tier, (Progress(), 2))
    parts = weights_after(striped, tier, (Progress(), 1), (Progress(epoch=1), 2))
    np.testing.assert_array_equal(whole, parts)


def test_a_run_can_start_in_the_middle_of_an_epoch(striped):
    steps, recorder = make_steps(), BatchRecorder()
    steps.trained._totals.assign([11.0, 80.0, 5.0 * BATCH])  # What five steps left.
    make_loop(steps, striped, callbacks=[recorder]).run(Progress(epoch=1, step=5))
    assert recorder.calls[:3] == ["begin", "epoch 1", "batch 5"]
    assert len(recorder.calls) == 2 + 7 + 2


@pytest.mark.parametrize("number", [5, 12, 15, 17], ids=["step", "last step", "validation", "end of epoch"])
def test_a_run_can_go_on_from_each_position_that_it_tells(striped, number):
    """12 steps, 4 batches of validation and the end make 17 positions an epoch."""
    kept = []
    steps = make_steps()

    def keep(position):
        if len(kept) < number:
            kept.append((position, steps.state()))

    make_loop(steps, striped, keep=keep).run()
    position, state = kept[-1]
    assert (position.epoch, position.step) == {5: (0, 5), 12: (0, 12), 15: (0, 12), 17: (1, 0)}[number]
    resumed, recorder = make_steps(), Recorder()
    resumed.restore(state)
    make_loop(resumed, striped, callbacks=[recorder]).run(position)
    for name, value in resumed.state().items():
        np.testing.assert_array_equal(value, steps.state()[name])
    assert recorder.calls[1] == f"epoch {position.epoch}"


@pytest.mark.parametrize(
    ("together", "ends"), [(5, (5, 10, 12)), pytest.param(12, (12,), marks=pytest.mark.slow), (50, (12,))]
)
def test_several_steps_in_a_call_are_the_same_epoch(striped, run, together, ends):
    """The last call of an epoch has what is left; a run goes on from the end of any."""
    _, expected = run
    steps, recorder, positions = make_steps(), BatchRecorder(), []
    options = {"callbacks": [recorder], "keep": positions.append, "steps_per_execution": together}
    make_loop(steps, striped, epochs=1, **options).run()
    assert recorder.calls[1:-1] == ["epoch 0", *(f"batch {end - 1}" for end in ends), "end of epoch 0"]
    assert sorted({position.step for position in positions if position.step}) == list(ends)
    for end, logs in zip(ends, recorder.epochs, strict=False):
        assert logs == pytest.approx(expected.epochs[end - 1], rel=1e-5)


def test_a_loss_that_is_no_number_names_its_step_in_the_middle_of_a_call(striped):
    steps = make_steps(learning_rate=1e30)
    names = Dataset(striped).file_names("train", 1, batch_size=BATCH, seed=1)
    assert len(set(names)) == BATCH
    with pytest.raises(DivergedError, match="at step 2 of epoch 1") as stopped:
        make_loop(steps, striped, steps_per_execution=5).run()
    assert stopped.value.records == names


class Stop(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = True


def test_a_callback_can_stop_training(striped):
    recorder = Recorder()
    make_loop(make_steps(), striped, epochs=5, callbacks=[Stop(), recorder]).run()
    assert recorder.calls == ["begin", "epoch 0", "end of epoch 0", "end"]


def test_keras_own_callbacks_work(striped, tmp_path):
    stopping = keras.callbacks.EarlyStopping(monitor="val_accuracy", patience=0, baseline=2.0, mode="max")
    slower = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.125)
    saver = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    steps = make_steps()
    make_loop(steps, striped, epochs=3, callbacks=[stopping, slower, saver]).run()
    assert steps.learning_rate() == pytest.approx(0.125)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.keras", "2.keras"]


def test_a_loss_that_is_no_number_stops_the_run(striped):
    steps = make_steps(learning_rate=0.25)
    steps.model.layers[-1].kernel.assign(np.full(steps.model.layers[-1].kernel.shape, np.nan))
    names = Dataset(striped).file_names("train", 0, batch_size=BATCH, seed=1)
    sentence = (
        f"NaN loss at step 1 of epoch 1, with the images {', '.join(names[:3])}, ...; "
        "try a lower --learning-rate (here it was 0.25)"
    )
    with pytest.raises(DivergedError, match=f"^{re.escape(sentence)}$") as stopped:
        make_loop(steps, striped).run()
    assert stopped.value.records == names


def test_an_epoch_that_comes_up_short_stops_the_run(striped, monkeypatch):
    loop = make_loop(make_steps(), striped, epochs=1)
    monkeypatch.setattr(Metrics, "num_seen", lambda self: 191)
    with pytest.raises(DatasetError, match="an epoch trained on 191 examples, expected 192"):
        loop.run()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_learns(striped, policy):
    steps, recorder = make_steps(policy), Recorder()
    make_loop(steps, striped, epochs=3, callbacks=[recorder]).run()
    assert isinstance(steps.model.optimizer, keras.optimizers.LossScaleOptimizer) == (
        policy == "mixed_float16"
    )
    assert recorder.epochs[-1]["loss"] < 0.7 * recorder.epochs[0]["loss"]
