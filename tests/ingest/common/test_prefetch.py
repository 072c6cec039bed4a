import itertools
import threading
import time

from shardstream.ingest.common.prefetch import LatencyEstimate, prefetch_map, read_files


def test_each_file_comes_in_order_and_what_cannot_be_read_says_why(tmp_path):
    paths = [tmp_path / str(number) for number in range(50)]
    for number, path in enumerate(paths):
        if number != 7:
            path.write_bytes(bytes([number]) * number)
    contents = list(read_files(paths, list(range(50)), LatencyEstimate()))
    assert [content for content in contents if isinstance(content, bytes)] == [
        bytes([number]) * number for number in range(50) if number != 7
    ]
    assert isinstance(contents[7], FileNotFoundError)


def test_what_is_too_large_for_a_photo_is_not_opened(tmp_path):
    (content,) = read_files([tmp_path / "film.jpg"], [1 << 30], LatencyEstimate())
    assert isinstance(content, OSError)
    assert content.strerror == "1,073,741,824 bytes, more than a photo has"


class Disk:
    """Answers after a while, and notes how many it was asked at once."""

    def __init__(self, secs):
        self.secs = secs
        self.lock = threading.Lock()
        self.now = self.most = self.asked = self.asked_in_threads = 0

    def ask(self, item):
        with self.lock:
            self.now += 1
            self.asked += 1
            self.asked_in_threads += threading.current_thread() is not threading.main_thread()
            self.most = max(self.most, self.now)
        time.sleep(self.secs)
        with self.lock:
            self.now -= 1
        return item


def test_a_slow_disk_is_asked_for_much_at_once():
    disk = Disk(0.02)
    assert list(prefetch_map(disk.ask, range(400), bytes(400), LatencyEstimate())) == list(range(400))
    assert 16 <= disk.most <= 64
    assert disk.asked == 400


def test_a_quick_disk_is_asked_without_threads():
    disk = Disk(0)
    for _ in prefetch_map(disk.ask, range(100), bytes(100), LatencyEstimate()):
        time.sleep(0.005)
    assert disk.asked_in_threads < 25  # None, but for what else the machine does.


def test_what_waits_in_memory_is_bounded():
    disk = Disk(0.02)
    answers = prefetch_map(disk.ask, range(200), [16 << 20] * 200, LatencyEstimate())
    for number in itertools.islice(answers, 100):
        assert disk.asked <= number + 1 + 3


def test_nothing_is_asked_of_what_nobody_wants_any_more():
    disk = Disk(0.01)
    answers = prefetch_map(disk.ask, range(1000), bytes(1000), LatencyEstimate())
    list(itertools.islice(answers, 20))
    answers.close()
    assert disk.asked < 200
    assert disk.now == 0
