"""The models: registry, weights, augmentation, optimizers."""
