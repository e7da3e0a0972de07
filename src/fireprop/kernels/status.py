"""What a kernel answers instead of raising; `engine/` alone turns it into words."""

OK = 0
FULL = 1  # the buffers of the caller are too small: enlarge them and go on from the sample that is named
SPIKE_LIMIT = 2
TIME_RESOLUTION = 3
GRAZE = 4
IN_HOLD = 5  # a given spike lies within the hold of its unit's spike before
OFF_THRESHOLD = 6  # a given spike lies where the potential is not at the threshold
MISSED = 7  # a potential crosses the threshold where no spike is given
