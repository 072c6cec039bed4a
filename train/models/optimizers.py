"""How each model is trained: learning rate, schedule, weight decay, label smoothing."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from shardstream.train.models.registry import BACKBONES, ScheduleName


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What trains a model well.

    Attributes:
        learning_rate: The highest.
        weight_decay: Decoupled (Loshchilov and Hutter 2017); 0 for none.
        label_smoothing: The share of each target that is spread over all classes.
        schedule: Whether the learning rate falls to 0 along a cosine or stays, once it has warmed up.
        warmup_epochs: How long it rises before; None is a tenth of all, five at most.
        most_epochs: How many are trained at most where the user does not say and there is enough for `least_steps`.
        least_steps: What is trained of very few images, in more epochs than those.
        batch_size_of_few: Images per step where they are few and the user does not say.
        fine_tune_learning_rate: The highest of the epochs that train all of a model whose weights came from elsewhere.
    """

    learning_rate: float
    weight_decay: float
    label_smoothing: float
    schedule: ScheduleName
    most_epochs: int
    least_steps: int = 0
    batch_size_of_few: int = 32
    warmup_epochs: float | None = None
    fine_tune_learning_rate: float = 1e-5  # Of Keras's guide to transfer learning.


# Of a backbone whose weights came with it.
_FINE_TUNE_EPOCHS = 10
# Of the applications, where a model has none of its own.
RECIPE = Recipe(
    learning_rate=0.001, weight_decay=0.02, label_smoothing=0.1, schedule="cosine", most_epochs=50
)
RECIPES = {
    "small": dataclasses.replace(
        RECIPE,
        learning_rate=0.002,
        # Of 96 drawn photos at 96x96, 498 steps gave 0.82 and 0.81 where 150 of twice the batch gave 0.74 and 0.79
        # (tried with views and a weight decay a little other than these).
        least_steps=500,
        batch_size_of_few=16,
    ),
    # The notebook's: Adam as Keras has it, 20 epochs.
    "notebook": Recipe(
        learning_rate=0.001,
        weight_decay=0.0,
        label_smoothing=0.0,
        schedule="constant",
        most_epochs=20,
        warmup_epochs=0.0,
    ),
    # From weights that are good already, and a classifier that fits them.
    **dict.fromkeys(
        BACKBONES,
        dataclasses.replace(
            RECIPE,
            learning_rate=1e-4,
            label_smoothing=0.0,
            most_epochs=_FINE_TUNE_EPOCHS,
            batch_size_of_few=16,
        ),
    ),
}

_CHOICES = (
    "learning_rate",
    "weight_decay",
    "label_smoothing",
    "schedule",
    "warmup_epochs",
    "fine_tune_learning_rate",
)
_WARMUP_SHARE = 0.1
_MOST_WARMUP_EPOCHS = 5
_EPOCHS = 20
# Where even the least steps would take longer than this.
_MOST_EPOCHS_OF_FEW = 100
# Of `_BATCH_SIZE`. On 590 photos split by house three ways, 900 gave 0.966 to 0.978 where 360 gave 0.932 to 0.965.
_ENOUGH_STEPS = 1000
_BATCH_SIZE = 32
# Fewer images than this are few.
_MANY_EXAMPLES = 1000


def make_recipe(model: str, options: Mapping[str, Any]) -> Recipe:
    """Returns the recipe of the model with what the user chose in its place; None is no choice."""
    chosen = {name: value for name in _CHOICES if (value := options.get(name)) is not None}
    return dataclasses.replace(RECIPES.get(model, RECIPE), **chosen)


def default_batch_size(recipe: Recipe, num_examples: int) -> int:
    """Returns 32, or the recipe's own where images are few: more steps in the same epochs.

    Of 738 photos, each read by a model that learnt from two thirds of the others and none of its house, `small` read
    0.973 rightly with batches of 16 and 0.958 with 32 (14 that only the one read rightly, 3 that only the other).
    """
    return _BATCH_SIZE if num_examples >= _MANY_EXAMPLES else recipe.batch_size_of_few


def default_epochs(recipe: Recipe, num_examples: int, batch_size: int) -> int:
    """Returns 20, or as many as make enough steps where images are few, within the recipe's most.

    Smaller batches than usual make more steps of the same epochs, not fewer epochs: 41 of 590 photos in batches of 16
    got 0.977 where 50 got 0.984 (tried with views and a weight decay a little other than these).
    """
    steps_per_epoch = max(1, num_examples // max(batch_size, _BATCH_SIZE))
    epochs = min(recipe.most_epochs, math.ceil(_ENOUGH_STEPS / steps_per_epoch))
    of_few = min(_MOST_EPOCHS_OF_FEW, math.ceil(recipe.least_steps / (num_examples // batch_size)))
    return max(min(_EPOCHS, recipe.most_epochs), epochs, of_few)


def default_head_epochs(weights: str, epochs: int) -> int:
    """Returns a quarter of the epochs where weights came from elsewhere: the last layer is soon as good as it gets."""
    return 0 if weights == "none" else math.ceil(epochs / 4)


def make_optimizer(recipe: Recipe, *, epochs: int, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Returns Adam, or AdamW where there is weight decay, with the learning rate of the recipe."""
    rate: Any = learning_rate_schedule(recipe, epochs=epochs, steps_per_epoch=steps_per_epoch)
    if not recipe.weight_decay:
        return keras.optimizers.Adam(rate)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay)
    # Pulling these towards 0 only shifts and scales what the layers after them undo.
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def learning_rate_schedule(
    recipe: Recipe, *, epochs: int, steps_per_epoch: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Returns the learning rate over the steps of a whole run."""
    total_steps = epochs * steps_per_epoch
    warmup_steps = _warmup_steps(recipe, total_steps, steps_per_epoch)
    if recipe.schedule == "constant" and not warmup_steps:
        return recipe.learning_rate
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup_steps else recipe.learning_rate,
        warmup_target=recipe.learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
        decay_steps=max(1, total_steps - warmup_steps),
        alpha=0.0 if recipe.schedule == "cosine" else 1.0,  # The share that is left in the end.
    )


def _warmup_steps(recipe: Recipe, total_steps: int, steps_per_epoch: int) -> int:
    if recipe.warmup_epochs is not None:
        return min(total_steps, round(recipe.warmup_epochs * steps_per_epoch))
    return max(1, round(min(_WARMUP_SHARE * total_steps, _MOST_WARMUP_EPOCHS * steps_per_epoch)))


def balanced_weights(class_counts: Sequence[int]) -> list[float]:
    """Returns what an example of each class counts for if all classes are to count the same, 1 in the mean.

    A class without examples gets 0.
    """
    present = sum(1 for count in class_counts if count)
    return [sum(class_counts) / (present * count) if count else 0.0 for count in class_counts]
