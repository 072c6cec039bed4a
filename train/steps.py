"""What happens with one batch: a step of training, a step of evaluation, on all replicas."""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ingest.errors import DatasetError
from train.consent import Consent

# What a step sums up over its examples.
_NUM_FIGURES = 3
_LOSS, _CORRECT, _COUNT = range(_NUM_FIGURES)


class Figures:
    """Sums over the examples that were seen since `reset`, on the device."""

    def __init__(self) -> None:
        # float64: as float32 a count stands still at 16.8 million.
        self._totals = tf.Variable(tf.zeros([3], tf.float64), trainable=False)
        self._num_finite = tf.Variable(tf.constant(0, tf.int64), trainable=False)

    def variables(self) -> dict[str, tf.Variable]:
        """Returns all state by name."""
        return {"totals": self._totals, "num_finite": self._num_finite}

    def reset(self) -> None:
        """Forgets all."""
        self._totals.assign(tf.zeros_like(self._totals))
        self._num_finite.assign(0)

    def add(self, sums: tf.Tensor) -> None:
        """Adds the sums of loss, right answers and examples over a batch, float64 [3]."""
        self._totals.assign_add(sums)
        # Which step it was whose loss was no number costs nothing to know afterwards, and nobody has to wait.
        self._num_finite.assign_add(tf.cast(tf.math.is_finite(self._totals[_LOSS]), tf.int64))

    def num_seen(self) -> int:
        """Returns the number of examples; waits for the device."""
        return int(self._totals[_COUNT])

    def num_finite_steps(self) -> int:
        """Returns how many batches came before the first whose loss was no number; waits for the device."""
        return int(self._num_finite)

    def means(self) -> dict[str, float]:
        """Returns mean loss and accuracy; waits for the device."""
        totals = self._totals.numpy().tolist()
        return {"loss": totals[_LOSS] / totals[_COUNT], "accuracy": totals[_CORRECT] / totals[_COUNT]}


class Steps:
    """A compiled model, and the figures of what it has seen in training and in evaluation.

    The loss that is shown is the plain cross-entropy, in training and validation alike. The one that is
    minimised may be smoothed, which would lift the training curve off the validation curve.
    """

    def __init__(
        self,
        model: keras.Model,
        strategy: tf.distribute.Strategy,
        *,
        label_smoothing: float,
        num_workers: int = 1,
    ) -> None:
        """Takes a model made and compiled in the scope of `strategy`, which `num_workers` processes share."""
        self.model = model
        self.strategy = strategy
        self.num_workers = num_workers
        self.consent = Consent(num_workers)
        self._label_smoothing = label_smoothing
        self.trained = Figures()
        self.evaluated = Figures()
        with strategy.scope():
            model.optimizer.build(model.trainable_variables)

    @property
    def num_local_replicas(self) -> int:
        """How many devices of this worker share its part of a batch."""
        return self.strategy.num_replicas_in_sync // self.num_workers

    def distributed(self, dataset: tf.data.Dataset, num_steps: int) -> Iterator[Any]:
        """Yields the batches of `num_steps` steps, each with a part for every replica of this worker."""
        # Where a dataset can end, several workers ask each other before every batch whether it has.
        endless = dataset.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
        batches = self.strategy.distribute_datasets_from_function(lambda _: endless)
        return itertools.islice(iter(batches), num_steps)

    def variables(self) -> dict[str, tf.Variable]:
        """Returns all state: weights, seeds of dropout and augmentation, optimizer, loss scale, figures so far.

        The names tell the variables of a model apart and are the same in every process that makes it.
        """
        keras_variables = [*self.model.variables, *self.model.optimizer.variables]
        # Keras numbers the layers of a process, not those of a model.
        named = {f"{i} {re.sub(r'_[0-9]+', '', v.path)}": v.value for i, v in enumerate(keras_variables)}
        return {**named, **self.trained.variables()}

    def state(self) -> dict[str, np.ndarray]:
        """Returns the values of all `variables`; waits for the device."""
        return {name: np.asarray(variable.numpy()) for name, variable in self.variables().items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Gives all variables the values that `state` returned.

        Raises:
            DatasetError: They are not of the same names, shapes and types: it is another model.
        """
        variables = self.variables()
        expected = {
            name: (variable.dtype.name, tuple(variable.shape)) for name, variable in variables.items()
        }
        found = {name: (value.dtype.name, value.shape) for name, value in state.items()}
        if differing := dict(expected.items() ^ found.items()):
            name = min(differing)
            raise DatasetError(
                f"the checkpoint is of another model: variable {name!r} is {found.get(name, 'not there')}, "
                f"expected {expected.get(name, 'none')}; --no-resume begins the run anew"
            )
        for name, variable in variables.items():
            variable.assign(state[name])

    def is_sound(self, state: Mapping[str, np.ndarray]) -> bool:
        """Returns whether all weights and figures in `state` are numbers."""
        weights = list(state.values())[: len(self.model.variables)]
        return all(np.isfinite(values).all() for values in (*weights, state["totals"]))

    def learning_rate(self) -> float:
        """Returns the learning rate of the next step."""
        rate: Any = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        return float(rate)

    def train(self, batch: Any) -> None:
        """Takes one step with (images, labels), uint8 and int32, one part for each replica."""
        self.consent.note(self._train(batch, self.consent.wishes))

    def evaluate(self, batch: Any) -> None:
        """Adds up the figures of (images, labels, weights); a weight of 0 makes an example count for nothing."""
        self.consent.note(self._evaluate(batch, self.consent.wishes))

    @tf.function
    def _train(self, batch: Any, wishes: tf.Tensor) -> tf.Tensor:
        figures, wishes = self._run(self._train_replica, batch, wishes)
        self.trained.add(figures)
        return wishes

    @tf.function
    def _evaluate(self, batch: Any, wishes: tf.Tensor) -> tf.Tensor:
        figures, wishes = self._run(self._evaluate_replica, batch, wishes)
        self.evaluated.add(figures)
        return wishes

    def _run(
        self, of_replica: Callable[[Any], tf.Tensor], batch: Any, wishes: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the figures of all replicas added up, and so the wishes of all workers: one sum for both."""
        parts = self.strategy.run(
            lambda batch, wishes: tf.concat([of_replica(batch), wishes], axis=0), args=(batch, wishes)
        )
        total: Any = self.strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None)
        return total[:_NUM_FIGURES], total[_NUM_FIGURES:]

    def _train_replica(self, batch: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        images, labels = batch
        with tf.GradientTape() as tape:
            probabilities = self.model(images, training=True)
            smoothed = self._cross_entropy(labels, probabilities, self._label_smoothing)
            # The optimizer adds up the replicas' gradients: with equal shares, a mean of their means.
            loss = (tf.reduce_mean(smoothed) + sum(self.model.losses)) / self.strategy.num_replicas_in_sync
            scaled_loss = self.model.optimizer.scale_loss(loss)
        variables = self.model.trainable_variables
        self.model.optimizer.apply(tape.gradient(scaled_loss, variables), variables)
        return self._figures(labels, probabilities, tf.ones_like(labels, tf.float32))

    def _evaluate_replica(self, batch: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        images, labels, weights = batch
        return self._figures(labels, self.model(images, training=False), weights)

    def _figures(self, labels: tf.Tensor, probabilities: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        losses = self._cross_entropy(labels, probabilities, 0.0)
        correct = tf.cast(
            tf.equal(tf.argmax(probabilities, axis=-1, output_type=labels.dtype), labels), tf.float32
        )
        figures = tf.stack([losses, correct, tf.ones_like(losses)]) * weights
        return tf.reduce_sum(tf.cast(figures, tf.float64), axis=1)

    def _cross_entropy(self, labels: tf.Tensor, probabilities: tf.Tensor, smoothing: float) -> tf.Tensor:
        targets = tf.one_hot(labels, probabilities.shape[-1])
        losses: Any = keras.losses.categorical_crossentropy(targets, probabilities, label_smoothing=smoothing)
        return losses
