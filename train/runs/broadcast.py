"""What the chief broadcasts to the other workers before the first step: the options, and the state to resume from."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from shardstream.ingest.common.errors import ConfigError
from shardstream.train.distributed.workers import Workers
from shardstream.train.runs.checkpoint import Checkpoint
from shardstream.train.runs.resume import Config, differences, resolve


@dataclasses.dataclass(frozen=True, slots=True)
class RunBroadcast:
    """The chief's options as in config.json, and its state if the run resumes.

    Only the chief needs the run folder, and options that depend on it or on free memory are resolved once for all.
    """

    options: Mapping[str, Any]
    checkpoint: Checkpoint | None

    def resolve(self, config: Config) -> Config:
        """Returns `config` with its open options as resolved by the chief."""
        return resolve(config, self.options)

    def check_same(self, workers: Workers, options: Mapping[str, Any]) -> None:
        """Ensures that `options`, which would go into config.json here, equal those of the chief.

        Raises:
            ConfigError: They differ.
        """
        if changed := differences(self.options, options, also=("versions",)):
            raise ConfigError(
                f"{workers.cluster.name} was started otherwise than the chief: {'; '.join(changed)}. Give all workers "
                "the same options, dataset and versions"
            )


def broadcast_run(workers: Workers, options: Mapping[str, Any], checkpoint: Checkpoint | None) -> None:
    """Sends the run to the other workers, which must call `receive_run`."""
    if workers.cluster.num_workers == 1:
        return  # Nobody receives, and a checkpoint is large.
    workers.broadcast(json.dumps(options).encode())
    workers.broadcast(checkpoint.to_bytes() if checkpoint else b"")


def receive_run(workers: Workers) -> RunBroadcast:
    """Returns what the chief sends in `broadcast_run`."""
    options, state = json.loads(workers.broadcast(b"")), workers.broadcast(b"")
    return RunBroadcast(options, Checkpoint.from_bytes(state, "the chief's state") if state else None)
