"""What `shardstream-train --help` says of options that take more than a line."""

# Not docstrings of the fields: there each line break would show.
MODEL_HELP = (
    "auto: lite0 with a classifier on its features, and where their cross-validation says that they may not be enough, "
    "small too; what is better on the validation split is kept. Options of training by gradients, such as --epochs, "
    "--learning-rate and --mixup, are for small then; --weights and --fine-tune need a model by name. Pictures below "
    "32x32 and several hosts get small alone. small: a compact residual network, 0.3 million parameters, trained with "
    "augmentation. lite0: EfficientNet-Lite0 "
    "with weights trained on ImageNet, which the installation brings; lite1 and lite2 are larger, in packages of their "
    "own. Run once for each picture, they need a minute where others need an hour. notebook: the layers of "
    "the notebook this project grew from. Its first one, Dense(1024) on every pixel, makes the convolution after "
    "it read 1024 channels: 106 of its 108 GFLOP for one picture of 300x300, where small takes 0.5, and 0.7 GB "
    "of activations for each picture of a batch. Or any of keras.applications, such as ResNet50, EfficientNetV2B0, "
    "MobileNetV3Small or ConvNeXtTiny, with its own preprocessing inside."
)
FINE_TUNE_HELP = (
    "What of lite0, lite1 or lite2 is trained after a classifier was fitted to their features: none; last, the last "
    "third of the blocks; or full, everything. Options such as --epochs and --mixup are for last and full. "
    "Not with --model auto."
)
WEIGHTS_HELP = (
    "What the model begins with. none: nothing. imagenet: what Keras downloads for an application. A path: an earlier "
    "run or a .keras file of it, whose last layer is kept where the classes are the same, or the .h5 file that Keras "
    "would have downloaded. With weights the last layer is trained alone at first, then all of the model at a lower "
    "rate."
)
JIT_HELP = (
    "Whether XLA compiles the model and its gradients. auto: on one GPU. On a CPU a step of small took a quarter "
    "longer with it, and on several devices it cannot be."
)
AUGMENTATION_HELP = (
    "Changes to the pictures in training, on the device. default: parts of them, mirrored or not, in another light; "
    "small is trained with parts of half the height and width. none: the pictures as they are, which is "
    "the default of notebook too, as the notebook had it. randaugment: two operations of RandAugment besides."
)
PRECISION_HELP = (
    "What the layers calculate in. auto: float32 on a CPU, mixed_bfloat16 on GPUs of compute capability 8.0 and "
    "up, mixed_float16 on those of 7.x. The saved models are float32 always."
)
CACHE_HELP = (
    "Where decoded images are kept, as uint8; they are decoded once, before the first epoch. none: nowhere, they are "
    "decoded in every epoch. memory. disk: a file in --cache-dir that later runs on the same dataset use too. auto: "
    "the first that fits of memory, disk and none, limits of containers respected. The order of the examples is the "
    "same."
)
STRATEGY_HELP = (
    "default: one device. mirrored: all visible GPUs, each batch split evenly. multiworker: all GPUs of all hosts. "
    "auto: multiworker if --hosts or TF_CONFIG names several, mirrored if there are several GPUs."
)
DEVICES_HELP = "default: one device. mirrored: all visible GPUs. auto: mirrored if there are several GPUs."
RESUME_HELP = (
    "Goes on with an unfinished run of the same options in the run folder, from its last state and to the same "
    "result as if it had never been stopped. --no-resume throws that run away and begins anew."
)
