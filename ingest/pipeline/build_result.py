"""The result of a build or an update."""

import dataclasses

from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.pipeline.catalog import Catalog
from shardstream.ingest.pipeline.changes import Changes
from shardstream.ingest.pipeline.diagnostics import Findings, find_issues
from shardstream.ingest.pipeline.steps import Assembled


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BuildResult:
    """The result of a build or an update.

    Attributes:
        info: The dataset.
        findings: Issues that deserve a look.
        passed_over: The number of skipped files by reason.
        num_read: The number of files that were read.
        source_bytes: The total size of all files.
        seconds: Wall-clock time.
        num_shards_written: The number of shards that were written; the others were reused.
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
    """Returns the result of a finished job."""
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
