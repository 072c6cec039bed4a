"""Training phases: consecutive epochs that train the same variables with the same optimizer."""

import dataclasses
from collections.abc import Sequence

import keras

from shardstream.train.models.build import CLASSIFIER
from shardstream.train.models.efficientnet_lite import LAST_LAYERS
from shardstream.train.models.optimizers import Recipe, make_optimizer
from shardstream.train.models.registry import FineTune


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Phase:
    """A phase of a run.

    Each phase has its own optimizer, all of which exist throughout the run, so that checkpoints hold the same variables
    wherever they are saved. A single optimizer for both would start the second phase with the step count of the first:
    the moving averages of the newly trained variables would count as warmed up, and their first updates would be three
    times too large.

    Attributes:
        first_epoch: The number of its first epoch, from 0.
        optimizer: As left by Keras's `compile`: with loss scaling if the precision requires it.
        variables: The variables it trains.
    """

    first_epoch: int
    optimizer: keras.optimizers.Optimizer
    variables: Sequence[keras.Variable]


def compile_phase(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    *,
    first_epoch: int = 0,
    variables: Sequence[keras.Variable] | None = None,
) -> Phase:
    """Returns a phase of training `variables`, by default all; call it in the scope of the strategy.

    The model is compiled for callbacks, which use `model.optimizer`; under mixed_float16 Keras also wraps it for loss
    scaling there.
    """
    model.compile(optimizer)
    trained = model.trainable_variables if variables is None else variables
    model.optimizer.build(trained)
    return Phase(first_epoch=first_epoch, optimizer=model.optimizer, variables=trained)


def one_phase(model: keras.Model, recipe: Recipe, *, epochs: int, steps_per_epoch: int) -> list[Phase]:
    """Returns the phase that trains all variables of a model; call it in the scope of the strategy."""
    return [compile_phase(model, make_optimizer(recipe, epochs=epochs, steps_per_epoch=steps_per_epoch))]


def two_phases(
    model: keras.Model, recipe: Recipe, *, epochs: int, head_epochs: int, steps_per_epoch: int
) -> list[Phase]:
    """Returns the phases of a pretrained model: its last layer alone, then all of it."""
    phases = []
    if head_epochs:
        optimizer = make_optimizer(recipe, epochs=head_epochs, steps_per_epoch=steps_per_epoch)
        head = model.get_layer(CLASSIFIER).trainable_variables
        phases.append(compile_phase(model, optimizer, variables=head))
    if fine_epochs := epochs - head_epochs:
        fine = dataclasses.replace(recipe, learning_rate=recipe.fine_tune_learning_rate)
        optimizer = make_optimizer(fine, epochs=fine_epochs, steps_per_epoch=steps_per_epoch)
        phases.append(compile_phase(model, optimizer, first_epoch=head_epochs))
    return phases


def fine_tune_phase(
    model: keras.Model, recipe: Recipe, *, fine_tune: FineTune, epochs: int, steps_per_epoch: int
) -> list[Phase]:
    """Returns the phase that trains the last blocks, or all, of a backbone together with its classifier."""
    optimizer = make_optimizer(recipe, epochs=max(1, epochs), steps_per_epoch=steps_per_epoch)
    if fine_tune == "full":
        return [compile_phase(model, optimizer)]
    layers = [layer for layer in model.layers if layer.name.startswith(LAST_LAYERS)]
    trained = [*layers, model.get_layer(CLASSIFIER)] if fine_tune == "last" else [model.get_layer(CLASSIFIER)]
    variables = [variable for layer in trained for variable in layer.trainable_variables]
    return [compile_phase(model, optimizer, variables=variables)]
