"""What happens with one batch: a step of training, a step of evaluation, on all replicas."""

from typing import Any

import keras
import tensorflow as tf

# What a step sums up over its examples.
_LOSS, _CORRECT, _COUNT = range(3)


class Steps:
    """A compiled model and the figures of what it has seen since `reset`.

    The loss that is shown is the plain cross-entropy, in training and validation alike. The one that is
    minimised may be smoothed, which would lift the training curve off the validation curve.
    """

    def __init__(
        self, model: keras.Model, strategy: tf.distribute.Strategy, *, label_smoothing: float
    ) -> None:
        """Takes a model made and compiled in the scope of `strategy`."""
        self.model = model
        self.strategy = strategy
        self._label_smoothing = label_smoothing
        # float64: as float32 a count stands still at 16.8 million.
        self._totals = tf.Variable(tf.zeros([3], tf.float64), trainable=False)
        with strategy.scope():
            model.optimizer.build(model.trainable_variables)

    def variables(self) -> list[tf.Variable]:
        """Returns all state: weights, seeds of dropout and augmentation, optimizer, figures so far."""
        keras_variables = [*self.model.variables, *self.model.optimizer.variables]
        return [*(variable.value for variable in keras_variables), self._totals]

    def reset(self) -> None:
        """Forgets the figures."""
        self._totals.assign(tf.zeros_like(self._totals))

    def num_seen(self) -> int:
        """Returns the number of examples since `reset`; waits for the device."""
        return int(self._totals[_COUNT])

    def means(self) -> dict[str, float]:
        """Returns mean loss and accuracy since `reset`; waits for the device."""
        totals = self._totals.numpy().tolist()
        return {"loss": totals[_LOSS] / totals[_COUNT], "accuracy": totals[_CORRECT] / totals[_COUNT]}

    def learning_rate(self) -> float:
        """Returns the learning rate of the next step."""
        rate: Any = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        return float(rate)

    def train(self, batch: Any) -> None:
        """Takes one step with (images, labels), uint8 and int32, one part for each replica."""
        self._train(batch)

    def evaluate(self, batch: Any) -> None:
        """Adds up the figures of (images, labels, weights); a weight of 0 makes an example count for nothing."""
        self._evaluate(batch)

    @tf.function
    def _train(self, batch: Any) -> None:
        self._add(self.strategy.run(self._train_replica, args=(batch,)))

    @tf.function
    def _evaluate(self, batch: Any) -> None:
        self._add(self.strategy.run(self._evaluate_replica, args=(batch,)))

    def _add(self, figures: Any) -> None:
        self._totals.assign_add(self.strategy.reduce(tf.distribute.ReduceOp.SUM, figures, axis=None))

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
