"""Labels of a split's records, from the manifest, without reading shards."""

import numpy as np

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.manifest import FILENAME as MANIFEST
from shardstream.ingest.dataset.manifest import open_manifest
from shardstream.ingest.dataset.metadata import DatasetInfo


def read_labels(info: DatasetInfo, split_name: str) -> np.ndarray:
    """Returns int32 [num_examples], the label of each record of a split in file order.

    Raises:
        DatasetError: The manifest is missing, corrupt, or does not match the metadata.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    split = info.split(split_name)
    firsts = np.cumsum([0, *(shard.num_examples for shard in split.shards)])
    labels = np.full(split.num_examples, -1, np.int32)
    names = pa.array(info.class_names)
    path = info.data_dir / MANIFEST
    with open_manifest(path) as manifest:
        for group in range(manifest.num_row_groups):
            rows = manifest.read_row_group(group, columns=["class_name", "split", "shard", "position"])
            rows = rows.filter(pc.field("split") == split_name)
            places = firsts[rows["shard"].to_numpy()] + rows["position"].to_numpy()
            found = pc.call_function(
                "index_in", [rows["class_name"].cast(pa.string())], pc.SetLookupOptions(names)
            )
            labels[places] = found.to_numpy()
    missing = int((labels < 0).sum())
    if missing:
        raise DatasetError(
            f"{path}: has no row for {missing:,} of the {split.num_examples:,} records of the split {split_name!r}; "
            f"repair it with `shardstream-ingest repair`"
        )
    return labels
