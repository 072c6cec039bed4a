import numpy as np
import pytest

from shardstream.predict.metrics.confusion import count_confusion


def confusion_of(matrix):
    actual, predicted = np.nonzero(matrix)
    counts = np.asarray(matrix)[actual, predicted]
    labels, taken = np.repeat(actual, counts), np.repeat(predicted, counts)
    return count_confusion(labels, taken, np.ones(len(labels)), num_classes=len(matrix))


def test_confused_pairs_come_most_frequent_first():
    pairs = confusion_of([[5, 1, 0], [3, 9, 0], [2, 1, 1]]).confused_pairs()
    found = [(pair.actual, pair.predicted, pair.count, pair.share) for pair in pairs]
    # Of equally frequent pairs the one that is the larger share of its class.
    assert found == [(1, 0, 3, 0.25), (2, 0, 2, 0.5), (2, 1, 1, 0.25), (0, 1, 1, pytest.approx(1 / 6))]


def test_a_part_of_the_matrix_is_what_these_classes_make_of_one_another():
    matrix = np.arange(16).reshape(4, 4)
    assert confusion_of(matrix).dense([3, 1]).tolist() == matrix[np.ix_([3, 1], [3, 1])].tolist()


def test_the_classes_with_most_errors_take_part_in_them_on_either_side():
    labels = np.arange(100)
    predicted = labels.copy()
    predicted[[10, 20]] = [90, 90]
    confusion = count_confusion(labels, predicted, np.ones(100), num_classes=100)
    assert confusion.classes_with_most_errors(3) == [10, 20, 90]
    assert confusion.support.tolist() == [1] * 100
