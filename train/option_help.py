"""Help texts of `shardstream-train` options that need more than a line, and the groups of options."""

# Titles and fields in the order of the help: most important first.
TRAIN_GROUPS = {
    "model": ("model", "image_size", "fine_tune", "weights", "head_epochs", "fine_tune_learning_rate"),
    "data": ("validation_share", "cache", "cache_dir", "max_bad_records", "seed"),
    "optimization (training by gradients)": (
        *("epochs", "batch_size", "learning_rate", "early_stopping", "class_weight", "schedule"),
        *("warmup_epochs", "weight_decay", "label_smoothing", "clip_norm"),
    ),
    "augmentation": ("augmentation", "flip", "mixup", "cutmix"),
    "devices": (
        *("strategy", "precision", "hosts", "rank", "deterministic", "jit_compile", "steps_per_execution"),
    ),
    "saving": ("save_every", "resume", "grace"),
    "output": ("json",),
}
MODEL_HELP = (
    "auto: a linear head on the features of lite0 and, where cross-validation says that it may not be enough, small "
    "as well; the better one on the validation split is kept. Options such as --epochs apply to small; "
    "--weights and --fine-tune need a model by name. Images below 32x32 get small alone. "
    "lite0: a linear head on the features of EfficientNet-Lite0 with ImageNet weights, which are part of the "
    "installation; lite1 and lite2 are larger, in packages of their own. Each image passes through them once, "
    "so they take a minute where others take an hour. small: a compact residual network, 0.3 million parameters, "
    "trained from scratch. notebook: the layers of the notebook this project grew from, whose Dense(1024) on every "
    "pixel costs 106 of its 108 GFLOP for one image of 300x300 (small: 0.5) and 0.7 GB of activations for each image "
    "of a batch. Or any of keras.applications, such as ResNet50, EfficientNetV2B0, MobileNetV3Small or ConvNeXtTiny, "
    "with its own preprocessing inside."
)
FINE_TUNE_HELP = (
    "What is trained of lite0, lite1 or lite2 after a linear head was fitted to their features: none; last, the last "
    "third of the blocks; or full, all layers. Options such as --epochs and --mixup are for last and full. "
    "Not with --model auto."
)
WEIGHTS_HELP = (
    "The initial weights. none: random. imagenet: those that Keras downloads for an application. A path: an earlier "
    "run or a .keras file of it, whose last layer is kept where the classes are the same, or the .h5 file that Keras "
    "would have downloaded. With weights the last layer is trained alone at first, then the whole model at a lower "
    "learning rate."
)
JIT_HELP = (
    "Whether XLA compiles the model and its gradients. auto: on one GPU. On a CPU a step of small took a quarter "
    "longer with it; on several devices it is not possible."
)
AUGMENTATION_HELP = (
    "Random changes to the images in training, on the device. default: random resized crops, flips and color jitter; "
    "small is trained at half the height and width of images from 128x128 on. none: the images as they are, also the "
    "default of notebook. "
    "randaugment: two operations of RandAugment in addition."
)
PRECISION_HELP = (
    "The data type that the layers calculate in. auto: float32 on a CPU, mixed_bfloat16 on GPUs of compute capability "
    "8.0 and up, mixed_float16 on those of 7.x. The saved models are always float32."
)
CACHE_HELP = (
    "Where decoded images are kept, as uint8. memory; disk, a file in --cache-dir that later runs on the same dataset "
    "use too; none: images are decoded in every epoch. auto: the first that fits of memory, disk and none, limits of "
    "containers respected. The order of the examples is the same with all of them."
)
STRATEGY_HELP = (
    "default: one device. mirrored: all visible GPUs, each batch split evenly. multiworker: all GPUs of all hosts. "
    "auto: multiworker if --hosts or TF_CONFIG names several hosts, mirrored if there are several GPUs."
)
DEVICES_HELP = "default: one device. mirrored: all visible GPUs. auto: mirrored if there are several GPUs."
RESUME_HELP = (
    "Start over, and remove what an unfinished run left in the run folder. Without it a run of the same options "
    "resumes at its last checkpoint, with the same result as if it had never stopped."
)
