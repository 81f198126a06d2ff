"""Candidates measured in turns, and which of them to take. Knows nothing of TensorFlow.

A machine is never quiet. So candidates take turns, those that are far behind drop out
first, those that are close are measured again and again, and what runs anyway is
replaced only by what is faster than the noise.
"""

import statistics

# A candidate whose best call is this many times slower gets no second turn.
HOPELESS = 2.5

# Turns that each of the others has before anything is settled, and at most.
FEWEST_TURNS = 3
MOST_TURNS = 9

# Medians that are closer than this, as a part, are equal.
MARGIN = 0.03


def run(names, measure, more_time=lambda: True):
    """Measures candidates in turns until one is fastest beyond doubt, or time is up.

    Args:
        names: List of strings.
        measure: A function of a name that returns the seconds of some calls.
        more_time: A function that tells whether to go on, asked between turns once
            each candidate had its fewest.

    Returns:
        A dictionary from each name to a list of seconds.
    """
    times = {name: [] for name in names}
    racing = list(names)
    for turn in range(1, MOST_TURNS + 1):
        for name in racing:
            times[name] += measure(name)
        # The least: of a few calls most may have met with a busy processor.
        least = {name: min(times[name]) for name in racing}
        hopeless = HOPELESS * min(least.values())
        racing = [name for name in racing if least[name] <= hopeless]
        if turn >= FEWEST_TURNS:
            best = fastest(times, racing)
            racing = [n for n in racing if not beats(times[best], times[n])]
        if len(racing) < 2 or (turn >= FEWEST_TURNS and not more_time()):
            break
        # Whoever comes first in a turn finds other caches than the last.
        racing.reverse()
    return times


def choose(times, incumbent):
    """Returns the name to take.

    Args:
        times: What `run` returned.
        incumbent: String, what is taken if nothing is faster beyond the noise.
    """
    if incumbent not in times:
        return fastest(times, times)
    ahead = [name for name in times if beats(times[name], times[incumbent])]
    return fastest(times, ahead) if ahead else incumbent


def fastest(times, names):
    """Returns the name with the least median."""
    return min(names, key=lambda name: statistics.median(times[name]))


def beats(ours, theirs):
    """Whether calls are faster than others by more than both spread.

    Their least must be less as well: what else runs on the machine only ever adds, and
    may have added to the one more than to the other.
    """
    mine, other = statistics.median(ours), statistics.median(theirs)
    ahead = other - mine > max(MARGIN * other, spread(ours) + spread(theirs))
    return ahead and min(ours) < (1 - MARGIN) * min(theirs)


def spread(seconds):
    """Half the distance between the quartiles."""
    if len(seconds) < 2:
        return 0.0
    first, _, third = statistics.quantiles(seconds, n=4, method="inclusive")
    return (third - first) / 2
