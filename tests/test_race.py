"""Which candidate the tuner takes, from times that are given."""

import itertools

import pytest

from kconv.tuner import race


class Times:
    """Measures candidates by a table, and writes down whom."""

    def __init__(self, table):
        self._table = {n: itertools.cycle(turns) for n, turns in table.items()}
        self.asked = []

    def __call__(self, name):
        self.asked.append(name)
        return next(self._table[name])

    def turns(self, name):
        return self.asked.count(name)


def steady(seconds):
    return [[seconds] * 3]


def test_hopeless_candidates_get_one_turn():
    times = Times({"a": steady(1), "b": steady(2.51), "c": steady(2.49)})
    found = race.run("abc", times)
    assert (times.turns("a"), times.turns("b"), times.turns("c")) == (3, 1, 3)
    assert found == {"a": [1] * 9, "b": [2.51] * 3, "c": [2.49] * 9}


def test_the_least_of_a_turn_decides_who_is_hopeless():
    times = Times({"a": steady(1), "b": [[9, 1.5, 9], [1.5] * 3]})
    race.run("ab", times)
    assert times.turns("b") > 1


def test_a_single_candidate_needs_one_turn():
    times = Times({"a": steady(1)})
    assert race.run("a", times) == {"a": [1] * 3}


def test_close_candidates_are_measured_on():
    times = Times({"a": steady(1), "b": steady(1.02), "c": steady(1.2)})
    race.run("abc", times)
    assert times.turns("a") == times.turns("b") == race.MOST_TURNS
    assert times.turns("c") == race.FEWEST_TURNS


def test_turns_go_to_and_fro():
    times = Times({"a": steady(1), "b": steady(1.1), "c": steady(1.2)})
    race.run("abc", times)
    assert times.asked == [*"abc", *"cba", *"abc"]


def test_when_time_is_up_the_fewest_turns_were_had():
    times = Times({"a": steady(1), "b": steady(1.01)})
    asked = []

    def more_time():
        asked.append(times.turns("b"))
        return len(asked) < 2

    race.run("ab", times, more_time)
    assert asked == [race.FEWEST_TURNS, race.FEWEST_TURNS + 1]
    assert times.turns("a") == race.FEWEST_TURNS + 1


def test_spread_is_half_the_distance_of_the_quartiles():
    assert race.spread([7]) == 0
    assert race.spread([1, 2, 3, 4, 5]) == 1
    assert race.spread([5, 1, 100, 3, 2, 4, -100]) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("ours", "theirs", "wins"),
    [
        ([1.0], [1.0], False),
        ([0.98], [1.0], False),  # a margin
        ([0.96], [1.0], True),
        ([1.0], [0.5], False),
        ([8, 9, 10, 11, 12], [10.9, 10.9], False),  # 0.9 < 1
        ([8, 9, 10, 11, 12], [11.1, 11.1], True),
        ([10, 10, 10], [8, 9, 11.5, 13, 14], False),  # 1.5 < 2
        ([10, 10, 10], [10.5, 11, 12.5, 13, 14], True),  # 2.5 > 1
        ([10, 10, 10], [10.2, 11, 12.5, 13, 14], False),  # the least are equal
        ([9, 10, 11], [11.9, 12.4, 12.9], True),  # 2.4 > 0.5 + 0.25
        ([8, 10, 12], [10.4, 11.4, 12.4], False),  # 1.4 < 1 + 0.5
    ],
)
def test_what_beats_must_be_ahead_of_both_spreads(ours, theirs, wins):
    assert race.beats(ours, theirs) is wins


def test_incumbent_stays_unless_it_is_beaten():
    times = {"a": [1.0] * 5, "b": [1.02] * 5, "c": [1.1] * 5, "d": [1.1, 3, 3, 4, 4]}
    assert race.choose(times, "a") == "a"
    assert race.choose(times, "b") == "b"
    assert race.choose(times, "c") == "a"
    assert race.choose(times, "d") == "a"
    assert race.choose(times, "gone") == "a"


def test_what_beats_the_incumbent_may_not_have_the_least_median():
    times = {"now": [4, 5, 5, 5, 6], "noisy": [1, 1, 3, 9, 9], "quiet": [3.5] * 5}
    assert race.fastest(times, times) == "noisy"
    assert race.choose(times, "now") == "quiet"


def test_noise_does_not_flip_a_choice():
    noisy = {"a": [1.0, 1.3, 0.9, 1.4, 1.1], "b": [1.2, 0.8, 1.0, 1.3, 0.9]}
    assert race.fastest(noisy, noisy) == "b"
    assert race.choose(noisy, "a") == "a"
    assert race.choose(noisy, "b") == "b"
