"""A dataset folder may come from a stranger: what it says of itself is checked before it is used."""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil

import pytest

from shardstream.ingest.__main__ import main
from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.layout import CLASS_FOLDERS
from shardstream.ingest.dataset.manifest import check_rows
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.metadata_check import read_metadata_state


@pytest.fixture(scope="module")
def whole(make_photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    photos = make_photos(folder / "photos", num_photos=20)
    assert main(["build", str(photos), str(folder / "d"), "--image-size", "16", "--workers", "1"]) == 0
    return folder / "d"


@pytest.fixture
def data(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "d")


def fitting(content: dict) -> dict:
    """Returns the content with the fingerprint that fits it: none of that is a secret."""
    held = {
        "class_names": content["class_names"],
        "image": content["judging"]["image"],
        "splits": {
            name: [(shard["num_examples"], shard["sha256"]) for shard in split["shards"]]
            for name, split in content["splits"].items()
        },
    }
    text = json.dumps(held, sort_keys=True).encode()
    return {**content, "fingerprint": hashlib.sha256(text).hexdigest()}


def shard(content):
    return content["splits"]["train"]["shards"][0]


LAYOUT = dataclasses.asdict(CLASS_FOLDERS)
EDITS = {
    "filename leads out": (lambda c: shard(c).update(filename="../victim"), "shards[0].filename"),
    "filename is absolute": (lambda c: shard(c).update(filename="/etc/passwd"), "shards[0].filename"),
    "filename of another": (lambda c: shard(c).update(filename="metadata.json"), "shards[0].filename"),
    "filename with NUL": (lambda c: shard(c).update(filename="a\0b"), "shards[0].filename"),
    "filename with a line break": (lambda c: shard(c).update(filename="a\nb"), "shards[0].filename"),
    "num_examples 10**400": (lambda c: shard(c).update(num_examples=10**400), "shards"),
    "num_examples negative": (lambda c: shard(c).update(num_examples=-16), "shards"),
    "num_bytes 10**30": (lambda c: shard(c).update(num_bytes=10**30), "num_bytes"),
    "num_bytes too few": (lambda c: shard(c).update(num_bytes=1), "num_bytes"),
    "sha256": (lambda c: shard(c).update(sha256="zz"), "sha256"),
    "counts that do not sum": (lambda c: c["splits"]["train"].update(class_counts=[1, 1, 1]), "class_counts"),
    "counts too short": (lambda c: c["splits"]["train"].update(class_counts=[1]), "class_counts"),
    "counts of 10**30": (lambda c: c["splits"]["train"].update(class_counts=[10**30, 1, 1]), "class_counts"),
    "no classes": (lambda c: c.update(class_names=[]), "class_names"),
    "a class twice": (lambda c: c.update(class_names=["food"] * 3), "class_names"),
    "class name of half a pair": (lambda c: c["class_names"].__setitem__(0, "\ud800"), "class_names"),
    "display names": (lambda c: c.update(display_names=["a"]), "display_names"),
    "another split": (lambda c: c["splits"].update(dev=c["splits"]["train"]), "splits"),
    "no splits": (lambda c: c.update(splits={}), "splits"),
    "fraction NaN": (lambda c: c["split_rule"].update(fractions={"test": float("nan")}), "fractions"),
    "fraction of train": (lambda c: c["split_rule"].update(fractions={"train": 0.1}), "fractions"),
    "verdicts of words": (lambda c: c.update(verdicts={"ok": "x"}), "verdicts"),
    "verdicts of controls": (lambda c: c.update(verdicts={"\x1b[31m": 1}), "verdicts"),
    "name leads out": (lambda c: c.update(name="../x"), "name"),
    "version": (lambda c: c.update(version="../x"), "version"),
    "image size": (lambda c: c["judging"]["image"].update(size=10**9), "image.size"),
    "quality": (lambda c: c["judging"]["image"].update(quality=0), "quality"),
    "shard_bytes": (lambda c: c.update(shard_bytes=0), "shard_bytes"),
    "seed": (lambda c: c["split_rule"].update(seed=10**400), "seed"),
    "layout depth": (lambda c: c.update(layout={**LAYOUT, "class_depth": 0}), "layout.class_depth"),
    "layout pattern": (lambda c: c.update(layout={**LAYOUT, "exclude": ["\0"]}), "layout"),
    "layout without its column": (lambda c: c.update(layout={**LAYOUT, "label_column": "b"}), "layout"),
    "layout of another type": (lambda c: c.update(layout=[1]), "layout"),
    "more look-alikes than were compared": (lambda c: c["look_alikes"].update(num_same=1), "num_compared"),
    "look-alikes by the billion": (lambda c: c["look_alikes"].update(num_candidates=10**30), "look_alikes"),
    "look-alikes without a pair": (lambda c: c["look_alikes"].update(same=[["a"]]), "look_alikes.same"),
    "more pairs than were found": (lambda c: c["look_alikes"].update(same=[["a", "b"]]), "look_alikes.same"),
    "splits is a list": (lambda c: c.update(splits=[1]), "splits"),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_value_that_cannot_be_true_is_named(data, name):
    edit, where = EDITS[name]
    content = json.loads((data / "metadata.json").read_text())
    edit(content)
    with contextlib.suppress(TypeError, AttributeError):
        content = fitting(content)
    (data / "metadata.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=rf"metadata\.json: .*{where.replace('[', '.').replace(']', '.')}"):
        DatasetInfo.load(data)


@pytest.mark.parametrize(
    "content", [b"[" * 1_000_000, b'{"a":' * 100_000, b"\xff\xfe", b"", b"1" * 5000, b"null", b"[]", b'"x"']
)
def test_whatever_is_in_metadata_json_ends_in_a_sentence(data, content):
    (data / "metadata.json").write_bytes(content)
    with pytest.raises(DatasetError, match=r"metadata\.json: "):
        DatasetInfo.load(data)


def pq_edit(data, change):
    """Edits the manifest, and the metadata so that they name it."""
    import pyarrow.parquet as pq

    table = pq.read_table(data / "manifest.parquet")
    pq.write_table(change(table), data / "manifest.parquet")
    sha256 = hashlib.sha256((data / "manifest.parquet").read_bytes()).hexdigest()
    content = json.loads((data / "metadata.json").read_text())
    (data / "metadata.json").write_text(json.dumps({**content, "manifest_sha256": sha256}))


def column(name, make, kind=None):
    import pyarrow as pa

    def change(table):
        values = pa.array(make(table[name].to_pylist()), kind or table.schema.field(name).type)
        return table.set_column(table.column_names.index(name), name, values)

    return change


def many_rows(table):
    import numpy as np
    import pyarrow as pa

    return table.take(pa.array(np.zeros(2_000_000, np.int32)))


MANIFESTS = {
    "no rows": lambda t: t.slice(0, 0),
    "a row less": lambda t: t.slice(1),
    "millions of rows": many_rows,
    "no column shard": lambda t: t.drop_columns(["shard"]),
    "shard beyond": column("shard", lambda v: [10**9] * len(v)),
    "shard negative": column("shard", lambda v: [-1] * len(v)),
    "position beyond": column("position", lambda v: [2**31 - 1] * len(v)),
    "position twice": column("position", lambda v: [0] * len(v)),
    "no places": column("split", lambda v: [None] * len(v)),
    "sha256 of letters": column("sha256", lambda v: ["zz"] * len(v)),
    "no sha256": column("sha256", lambda v: [None] * len(v)),
    "a path that leads out": column("path", lambda v: ["../" + path for path in v]),
    "an absolute path": column("path", lambda v: ["/" + path for path in v]),
    "a text of 1 MB": column("reason", lambda v: ["x" * 1_000_000] * len(v)),
    "another class": column("class_name", lambda v: ["bird"] * len(v)),
    "another split": column("split", lambda v: ["dev"] * len(v)),
    "other verdicts": column("verdict", lambda v: ["rejected"] * len(v)),
    "paths of numbers": column("path", lambda v: list(range(len(v))), "int64"),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_does_not_fit_the_shards_is_refused_though_its_hash_fits(data, name):
    pq_edit(data, MANIFESTS[name])
    with pytest.raises(DatasetError, match=r"manifest\.parquet: .*repair"):
        check_rows(DatasetInfo.load(data))


@pytest.mark.parametrize("name", ["metadata.json", "manifest.parquet", "features.json", "label.labels.txt"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_not_read(data, name, kind):
    (data / name).unlink()
    if kind == "pipe":
        os.mkfifo(data / name)
    elif kind == "device":
        (data / name).symlink_to("/dev/zero")
    else:
        (data / name).mkdir()
    assert name in [damage.filename for damage in read_metadata_state(data).damages]
