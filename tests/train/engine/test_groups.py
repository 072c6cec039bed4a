import numpy as np
import pytest

from shardstream.ingest.common.errors import DatasetError
from shardstream.train.engine import groups
from shardstream.train.engine.groups import find_groups


def test_the_first_group_of_the_expression_names_what_belongs_together():
    names = ["exterior/12_a.jpg", "interior/12_b.jpg", "food/roti.jpg", "food/dosa.jpg", "interior/7_b.jpg"]
    found = find_groups(names, r"/(\d+)_")
    assert found is not None
    assert found[0] == found[1]
    assert len(np.unique(found)) == 4


def test_names_in_any_writing():
    names = ["음식/1_a.jpg", "a\udcff/1_b.jpg", "c\n/2_b.jpg"]
    assert len(np.unique(find_groups(names, r"/(\d)_"))) == 2


@pytest.mark.parametrize("rule", ["duplicates", "near-duplicates"])
def test_rules_that_are_no_expression(rule):
    assert find_groups(["a/1.jpg"], rule) is None
    assert find_groups([], r"(\d)") is None


@pytest.mark.parametrize(
    ("rule", "reason"), [("(", "is invalid"), (r"\d", "is invalid"), (r"^((a+)+)+$", "takes too long")]
)
def test_an_expression_of_a_stranger(rule, reason, monkeypatch):
    monkeypatch.setattr(groups, "_TIMEOUT_SECS", 5)
    with pytest.raises(DatasetError, match=reason):
        find_groups(["a" * 60 + "b1"], rule)
