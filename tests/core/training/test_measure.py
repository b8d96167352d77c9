from posttrain.core.training.measure import Stopwatch


def test_seconds_run_and_memory_is_that_of_a_python_process():
    clock = Stopwatch()
    first = clock.seconds
    block = bytearray(64 * 2**20)
    assert clock.seconds > first >= 0
    assert len(block) / 2**30 < clock.peak_gib < 64
