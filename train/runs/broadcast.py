"""What the chief tells the other workers before the first step: the options, and the state to go on from."""

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
    """What the chief said: what config.json says, and its state if the run goes on from one.

    Only the chief needs the run folder, and what is left open there or by free memory is decided once for all.
    """

    options: Mapping[str, Any]
    checkpoint: Checkpoint | None

    def resolve(self, config: Config) -> Config:
        """Returns `config` with what the chief decided where `config` leaves it open."""
        return resolve(config, self.options)

    def check_same(self, workers: Workers, options: Mapping[str, Any]) -> None:
        """Ensures that `options`, which config.json would say here, are those of the chief.

        Raises:
            ConfigError: They are not.
        """
        if changed := differences(self.options, options, also=("versions",)):
            raise ConfigError(
                f"{workers.cluster.name} was started otherwise than the chief: {'; '.join(changed)}. Give all workers "
                "the same options, dataset and versions"
            )


def broadcast_run(workers: Workers, options: Mapping[str, Any], checkpoint: Checkpoint | None) -> None:
    """Tells the other workers, which have to be in `receive_run`."""
    if workers.cluster.num_workers == 1:
        return  # Nobody listens, and the bytes of a checkpoint are many.
    workers.broadcast(json.dumps(options).encode())
    workers.broadcast(checkpoint.to_bytes() if checkpoint else b"")


def receive_run(workers: Workers) -> RunBroadcast:
    """Returns what the chief tells in `broadcast_run`."""
    options, state = json.loads(workers.broadcast(b"")), workers.broadcast(b"")
    return RunBroadcast(options, Checkpoint.from_bytes(state, "the chief's state") if state else None)
