"""What a build or an update came to."""

import dataclasses

from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.pipeline.catalog import Catalog
from shardstream.ingest.pipeline.changes import Changes
from shardstream.ingest.pipeline.diagnostics import Findings, find_issues
from shardstream.ingest.pipeline.steps import Assembled


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BuildResult:
    """What a build or an update came to.

    Attributes:
        info: The dataset.
        findings: What is worth a look in it.
        passed_over: The number of files that were not looked at, by reason.
        num_read: How many files were read.
        source_bytes: The size of all files.
        seconds: How long it took.
        num_shards_written: How many of its shards were written; the others are those that were there.
        changes: What an update changed; None for a build.
    """

    info: DatasetInfo
    findings: Findings
    passed_over: dict[str, int]
    num_read: int
    source_bytes: int
    seconds: float
    num_shards_written: int
    changes: Changes | None = None


def summarize(
    catalog: Catalog, assembled: Assembled, *, num_read: int, seconds: float, changes: Changes | None = None
) -> BuildResult:
    """Returns what a finished job came to."""
    return BuildResult(
        info=assembled.info,
        findings=find_issues(catalog, assembled.info),
        passed_over=dict(catalog.listing.skipped),
        num_read=num_read,
        source_bytes=int(catalog.listing.sizes.sum()),
        seconds=seconds,
        num_shards_written=assembled.num_written,
        changes=changes,
    )
