"""Devices, distribution strategy, precision and seeds."""

import contextlib
import functools
import importlib.metadata
import logging
import platform
from collections.abc import Iterator

import keras
import tensorflow as tf

from shardstream.ingest.common.errors import ConfigError
from shardstream.train.distributed.cluster import ALONE, Cluster, JitCompile, Precision, StrategyName
from shardstream.train.distributed.rendezvous import startup_watchdog, wait_for_workers

logger = logging.getLogger(__name__)

# Among GPUs that benefit from mixed precision, Ampere and later support bfloat16, which has the range of float32 and
# needs no loss scaling; Volta and Turing have float16 only.
_BFLOAT16_CAPABILITY = (8, 0)
_FLOAT16_CAPABILITY = (7, 0)


def make_strategy(name: StrategyName, cluster: Cluster = ALONE) -> tf.distribute.Strategy:
    """Returns the strategy over the visible devices of all workers, after waiting for the workers.

    Raises:
        ConfigError: `mirrored` is requested without a GPU, or the strategy does not support this number of workers.
        StoppedError: A signal was received while waiting for other workers.
        WorkerLostError: A worker did not connect.
    """
    if cluster.num_workers > 1 and name not in ("auto", "multiworker"):
        raise ConfigError(
            f"strategy is {name!r}, but --hosts or TF_CONFIG names {cluster.num_workers} workers; "
            "use --strategy auto or name one"
        )
    if cluster.num_workers > 1:
        return _multi_worker(cluster)
    if name == "multiworker":
        raise ConfigError(
            "strategy is 'multiworker', but there is one worker; name all with --hosts a:2222,b:2222 --rank 0, "
            "or in TF_CONFIG"
        )
    gpus = tf.config.list_logical_devices("GPU")
    if name == "default" or (name == "auto" and len(gpus) < 2):
        return tf.distribute.get_strategy()
    devices = gpus or tf.config.list_logical_devices("CPU")
    if not gpus and len(devices) < 2:
        raise ConfigError("strategy is 'mirrored', but TensorFlow sees no GPU; use --strategy default")
    return _mirrored(tuple(device.name for device in devices))


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    # One per process: a second one restarts the numbering of its collective operations, and those of synchronized batch
    # normalization then collide with the first one's ("Shape mismatch in the collective instance").
    return tf.distribute.MirroredStrategy(devices)


@functools.cache
def _multi_worker(cluster: Cluster) -> tf.distribute.Strategy:
    wait_for_workers(cluster)  # TensorFlow would wait too, but ignores SIGTERM and does not say for whom.
    distribute = tf.distribute
    resolver = distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.addresses)}),
        task_type="worker",
        task_id=cluster.rank,
        rpc_layer="grpc",
    )
    # NCCL on GPUs; CPUs use the ring, which sums in the same order each time.
    kinds = distribute.experimental.CommunicationImplementation
    kind = kinds.AUTO if tf.config.list_physical_devices("GPU") else kinds.RING
    options = distribute.experimental.CommunicationOptions(implementation=kind)
    with startup_watchdog(cluster):
        return distribute.MultiWorkerMirroredStrategy(resolver, options)


def local_devices(strategy: tf.distribute.Strategy) -> list[str | None]:
    """Returns the devices of this process that `strategy` uses; None for the one that TensorFlow takes by default."""
    if strategy.num_replicas_in_sync == 1:
        return [None]
    return list(strategy.extended.worker_devices)


def resolve_precision(wanted: Precision) -> str:
    """Returns the name of the Keras dtype policy: as requested, or for `auto` the one that all GPUs support well."""
    if wanted != "auto":
        return wanted
    gpus = tf.config.list_physical_devices("GPU")
    capabilities = [tf.config.experimental.get_device_details(gpu).get("compute_capability") for gpu in gpus]
    return precision_for(capabilities)


def precision_for(capabilities: list[tuple[int, int] | None]) -> str:
    """Returns the policy for GPUs of these compute capabilities; None if a GPU does not report it."""
    known = [capability for capability in capabilities if capability is not None]
    if not known or len(known) < len(capabilities) or min(known) < _FLOAT16_CAPABILITY:
        return "float32"
    return "mixed_bfloat16" if min(known) >= _BFLOAT16_CAPABILITY else "mixed_float16"


@contextlib.contextmanager
def precision_scope(policy: str) -> Iterator[None]:
    """Layers made in this scope compute in `policy`; their variables are float32 in any case."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def resolve_jit_compile(wanted: JitCompile, num_replicas: int) -> JitCompile:
    """Returns whether XLA compiles the steps: as requested, or for `auto` on with a single GPU.

    Raises:
        ConfigError: It is requested with several devices.
    """
    if wanted == "on" and num_replicas > 1:
        raise ConfigError(
            f"jit_compile is on, but XLA cannot compile a step of {num_replicas} devices; choose auto or off"
        )
    if wanted != "auto":
        return wanted
    return "on" if num_replicas == 1 and tf.config.list_physical_devices("GPU") else "off"


def set_deterministic() -> None:
    """Makes all operations of this process deterministic from now on."""
    tf.config.experimental.enable_op_determinism()


def set_seed(seed: int) -> None:
    """Seeds Python, NumPy and TensorFlow, and so all weights initialized afterwards."""
    keras.utils.set_random_seed(seed)


def fitting_batch_size(batch_size: int, num_replicas: int) -> int:
    """Returns the largest batch size up to `batch_size` divisible by the number of replicas; at least 1 for each."""
    return max(1, batch_size // num_replicas) * num_replicas


def check_batch_size(batch_size: int, num_replicas: int) -> None:
    """Checks that the batch size is divisible by the number of replicas.

    Raises:
        ConfigError: It is not.
    """
    if batch_size % num_replicas:
        whole = fitting_batch_size(batch_size, num_replicas)
        raise ConfigError(
            f"batch_size {batch_size} cannot be split evenly over {num_replicas} devices; "
            f"choose for example --batch-size {whole}"
        )


def versions(*names: str) -> dict[str, str]:
    """Returns the versions of Python and these packages, by default of all that results depend on."""
    names = names or ("shardstream", "tensorflow", "keras", "numpy")
    return {"python": platform.python_version()} | {name: _version(name) for name in names}


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
