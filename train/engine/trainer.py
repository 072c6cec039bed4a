"""One training or evaluation step, on all replicas."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from shardstream.ingest.common.errors import DatasetError
from shardstream.train.distributed.preemption_sync import PreemptionSync
from shardstream.train.engine.variables import assign, by_name, find_difference, values_of
from shardstream.train.models.augmentation import NO_AUGMENTATION, Augmentation
from shardstream.train.models.phases import Phase

# Indices of the sums over the examples of a step.
_NUM_FIGURES = 3
_LOSS, _CORRECT, _COUNT = range(_NUM_FIGURES)


class Metrics:
    """Sums over the examples seen since `reset`, on the device."""

    def __init__(self) -> None:
        # float64: a float32 counter stops at 16.8 million.
        self._totals = tf.Variable(tf.zeros([3], tf.float64), trainable=False)
        self._num_finite = tf.Variable(tf.constant(0, tf.int64), trainable=False)

    def variables(self) -> dict[str, tf.Variable]:
        """Returns all variables by name."""
        return {"totals": self._totals, "num_finite": self._num_finite}

    def reset(self) -> None:
        """Resets all sums."""
        self._totals.assign(tf.zeros_like(self._totals))
        self._num_finite.assign(0)

    def add(self, sums: tf.Tensor) -> None:
        """Adds the sums of loss, correct predictions and examples over a batch, float64 [3]."""
        self._totals.assign_add(sums)
        # Counts finite steps on the device, so the first NaN step can be found later without synchronizing.
        self._num_finite.assign_add(tf.cast(tf.math.is_finite(self._totals[_LOSS]), tf.int64))

    def num_seen(self) -> int:
        """Returns the number of examples; waits for the device."""
        return int(self._totals[_COUNT])

    def num_finite_steps(self) -> int:
        """Returns how many batches came before the first whose loss was NaN or infinite; waits for the device."""
        return int(self._num_finite)

    def means(self) -> dict[str, float]:
        """Returns mean loss and accuracy; waits for the device."""
        totals = self._totals.numpy().tolist()
        return {"loss": totals[_LOSS] / totals[_COUNT], "accuracy": totals[_CORRECT] / totals[_COUNT]}


class Trainer:
    """A model, its training setup, and the metrics of training and evaluation.

    The displayed loss is the plain cross-entropy, in training and validation alike. The minimized loss may use label
    smoothing, which would shift the training curve away from the validation curve.
    """

    def __init__(
        self,
        model: keras.Model,
        strategy: tf.distribute.Strategy,
        *,
        phases: Sequence[Phase],
        augmentation: Augmentation = NO_AUGMENTATION,
        label_smoothing: float,
        class_weights: Sequence[float] | None = None,
        clip_norm: float | None = None,
        jit_compile: bool = False,
        num_workers: int = 1,
    ) -> None:
        """Takes objects made in the scope of `strategy`, which `num_workers` processes share.

        Args:
            model: The model to train.
            strategy: Distribution strategy.
            phases: Training phases; the first starts at epoch 0.
            augmentation: Applied to each training batch.
            label_smoothing: The fraction of each target that is spread over all classes.
            class_weights: Example weight of each class in the minimized loss; None for 1.
            clip_norm: Maximum global norm of the gradients of a step; None for no limit.
            jit_compile: Whether XLA compiles the model and its gradients; on a single device only.
            num_workers: Number of processes.
        """
        self.model = model
        self.strategy = strategy
        self.num_workers = num_workers
        self.preemption = PreemptionSync(num_workers)
        self.augmentation = augmentation
        self._phases = tuple(phases)
        self._phase = 0
        self._label_smoothing = label_smoothing
        self._class_weights = class_weights
        self._clip_norm = clip_norm
        self._gradients = (
            tf.function(self._gradients_of, autograph=False, jit_compile=True)
            if jit_compile
            else self._gradients_of
        )
        self.trained = Metrics()
        self.evaluated = Metrics()
        self.begin_epoch(0)

    def begin_epoch(self, epoch: int) -> None:
        """Switches to the training phase of this epoch."""
        self._phase = max(i for i, phase in enumerate(self._phases) if phase.first_epoch <= epoch)
        self.model.optimizer = self._phases[self._phase].optimizer  # For the callbacks.

    @property
    def num_local_replicas(self) -> int:
        """Number of devices of this worker, which share its part of a batch."""
        return self.strategy.num_replicas_in_sync // self.num_workers

    def distributed(self, batches: Iterable[Sequence[tf.Tensor]]) -> Iterator[Any]:
        """Yields this worker's batches, each divided evenly among its replicas."""
        if self.strategy.num_replicas_in_sync == 1:
            yield from batches
            return
        num_local = self.num_local_replicas
        for batch in batches:
            split_tensors = [tf.split(tensor, num_local) for tensor in batch]
            # Each worker has replicas with consecutive numbers.
            yield tuple(
                self.strategy.experimental_distribute_values_from_function(
                    lambda context, parts=parts: parts[context.replica_id_in_sync_group % num_local]
                )
                for parts in split_tensors
            )

    def variables(self) -> dict[str, tf.Variable]:
        """Returns all state by name: weights, seeds of dropout and augmentation, optimizer, loss scale, metrics so far.

        The names are unique within a model and the same in every process that builds it.
        """
        of_optimizers = [variable for phase in self._phases for variable in phase.optimizer.variables]
        named = by_name([*self.model.variables, *of_optimizers, *self.augmentation.variables()])
        return {**named, **self.trained.variables()}

    def state(self) -> dict[str, np.ndarray]:
        """Returns the values of all `variables`; waits for the device."""
        return values_of(self.variables())

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Restores the values of all variables from `state`.

        Raises:
            DatasetError: Names, shapes or types differ: it is another model.
        """
        variables = self.variables()
        if difference := find_difference(variables, state):
            raise DatasetError(f"the checkpoint is of another model: {difference}; --no-resume starts over")
        assign(variables, state)

    def is_finite(self, state: Mapping[str, np.ndarray]) -> bool:
        """Returns whether all weights and metrics in `state` are finite."""
        weights = list(state.values())[: len(self.model.variables)]
        return all(np.isfinite(values).all() for values in (*weights, state["totals"]))

    def learning_rate(self) -> float:
        """Returns the learning rate of the next step."""
        rate: Any = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        return float(rate)

    def train(self, *batches: Any) -> None:
        """Runs a step for each batch of (images, labels), uint8 and int32, with one part per replica.

        Several in one call have the Python overhead of a single step.
        """
        train: Any = self._train if len(batches) == 1 else self._train_all
        self.preemption.note(train(*batches, self.preemption.stop_flags, self._phase))

    def evaluate(self, batch: Any) -> None:
        """Adds the metrics of (images, labels, weights); weight 0 excludes an example."""
        self.preemption.note(self._evaluate(batch, self.preemption.stop_flags))

    @tf.function(autograph=False)
    def _train(self, batch: Any, stop_flags: tf.Tensor, phase: int) -> tf.Tensor:
        figures, stop_flags = self._run(partial(self._train_replica, self._phases[phase]), batch, stop_flags)
        self.trained.add(figures)
        return stop_flags

    @tf.function(autograph=False)
    def _train_all(self, *arguments: Any) -> tf.Tensor:
        # Each step is a call of the same function, which is traced once. A TensorFlow loop over them fails with several
        # replicas ("while/cond/Placeholder").
        *batches, stop_flags, phase = arguments
        sums = [self._train(batch, stop_flags, phase) for batch in batches]
        return sums[-1]

    @tf.function(autograph=False)
    def _evaluate(self, batch: Any, stop_flags: tf.Tensor) -> tf.Tensor:
        figures, stop_flags = self._run(self._evaluate_replica, batch, stop_flags)
        self.evaluated.add(figures)
        return stop_flags

    def _run(
        self, of_replica: Callable[[Any], tf.Tensor], batch: Any, stop_flags: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the metrics summed over all replicas, and the stop flags of all workers, in a single reduction."""
        parts = self.strategy.run(
            lambda batch, stop_flags: tf.concat([of_replica(batch), stop_flags], axis=0),
            args=(batch, stop_flags),
        )
        total: Any = self.strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None)
        return total[:_NUM_FIGURES], total[_NUM_FIGURES:]

    def _train_replica(self, phase: Phase, batch: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        images, labels = batch
        num_classes: Any = self.model.output_shape[-1]
        images, targets = self.augmentation(images, tf.one_hot(labels, num_classes))
        probabilities, gradients = self._gradients(phase, images, targets)
        if self._clip_norm is not None:
            gradients = self._clipped(phase, gradients)
        if isinstance(phase.optimizer, keras.optimizers.LossScaleOptimizer):
            gradients = self._overflowing_together(phase.optimizer, gradients)
        phase.optimizer.apply(gradients, phase.variables)
        return self._figures(labels, probabilities, tf.ones_like(labels, tf.float32))

    def _gradients_of(self, phase: Phase, images: Any, targets: Any) -> tuple[tf.Tensor, Any]:
        with tf.GradientTape() as tape:
            probabilities = self.model(images, training=True)
            losses = _cross_entropy(targets, probabilities, self._label_smoothing)
            if self._class_weights is not None:
                losses *= tf.linalg.matvec(targets, tf.constant(self._class_weights, tf.float32))
            # The optimizer sums the replicas' gradients: with equal batch sizes, this gives the mean of their means.
            loss = (tf.reduce_mean(losses) + sum(self.model.losses)) / self.strategy.num_replicas_in_sync
            scaled_loss = phase.optimizer.scale_loss(loss)
        return probabilities, tape.gradient(scaled_loss, phase.variables)

    def _clipped(self, phase: Phase, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        """Returns this replica's gradients, scaled down if the global norm over all replicas exceeds the limit.

        Keras's `global_clipnorm` uses the norm of each replica separately, so it differs from a single device.
        """
        total = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        norm = tf.linalg.global_norm(total) / phase.optimizer.scale_loss(tf.constant(1.0))
        factor = tf.minimum(1.0, self._clip_norm / norm)
        # An infinite norm makes the gradients NaN, and loss scaling skips the step, as it should.
        return [gradient * factor for gradient in gradients]

    def _overflowing_together(
        self, optimizer: keras.optimizers.LossScaleOptimizer, gradients: list[tf.Tensor]
    ) -> list[tf.Tensor]:
        """Returns this replica's gradients, or NaN on every replica if those of any overflowed.

        Keras's loss scaling checks the gradients of a replica before they are summed: the other replicas would take
        the step that one skips, with its infinite gradients, or wait for it forever.
        """
        if self.strategy.num_replicas_in_sync == 1:
            return gradients
        is_finite: Any = optimizer.check_finite(gradients)
        overflowed = 1.0 - tf.cast(is_finite, tf.float32)
        count = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, overflowed)
        return [tf.where(count > 0, tf.cast(np.nan, gradient.dtype), gradient) for gradient in gradients]

    def _evaluate_replica(self, batch: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        images, labels, weights = batch
        return self._figures(labels, self.model(images, training=False), weights)

    def _figures(self, labels: tf.Tensor, probabilities: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        losses = _cross_entropy(tf.one_hot(labels, probabilities.shape[-1]), probabilities, 0.0)
        correct = tf.cast(
            tf.equal(tf.argmax(probabilities, axis=-1, output_type=labels.dtype), labels), tf.float32
        )
        figures = tf.stack([losses, correct, tf.ones_like(losses)]) * weights
        return tf.reduce_sum(tf.cast(figures, tf.float64), axis=1)


def _cross_entropy(targets: tf.Tensor, probabilities: tf.Tensor, smoothing: float) -> tf.Tensor:
    losses: Any = keras.losses.categorical_crossentropy(targets, probabilities, label_smoothing=smoothing)
    return losses
