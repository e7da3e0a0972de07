"""What happens in a sample, in order of time: the one place that says so, for every sweep over the log of a graph."""

from typing import NamedTuple

import numpy as np

from fireprop.kernels.compiling import njit, piece
from fireprop.kernels.log import arrival_time

# A spike; the end of its refractory period; what comes from outside, or late; the arrival of a spike where it is sent.
SPIKE, END_OF_HOLD, INPUT, ARRIVAL = range(4)


class Part(NamedTuple):
    """Which part of a simulation a run is, of one that starts from a state or ends with one.

    end      (batch,) float64
    carried  (batch + 1,) int64: places in the log of the spikes of an earlier run that still act in a sample; those
             whose refractory period has ended before are at -inf
    """

    end: np.ndarray
    carried: np.ndarray


@njit(cache=True)
def steps_of(nodes, log, sample, last, beyond):
    """The steps of a sample forwards in time: (time, event, kind), (n,) each; backwards they are read from the end.

    last    one past the last spike that is wanted
    beyond  whether what comes after that spike is wanted too, up to the last event of the sample

    At one instant spikes come first, then ends of hold, then what comes from outside, then what spikes send (design 3).
    """
    spike, arrival = log.offsets[1, sample], log.offsets[1, sample]
    outside, outside_to = log.offsets[0, sample], log.offsets[0, sample + 1]
    order, ends = release_order(nodes, log, spike, last)
    first, held = spike, 0
    most = outside_to - outside + 3 * (last - first)
    time, event, kind = np.empty(most), np.empty(most, np.int64), np.empty(most, np.int64)
    n = 0
    while n < most and (beyond or spike < last):
        f = log.events[spike].time if spike < last else np.inf
        end = ends[order[held]] if held < order.size else np.inf
        t_outside = arrival_time(log.events[outside]) if outside < outside_to else np.inf
        t_arrival = arrival_time(log.events[arrival]) if arrival < last else np.inf
        t = min(f, end, t_outside, t_arrival)
        time[n] = t
        if f == t:
            event[n], kind[n] = spike, SPIKE
            spike += 1
        elif end == t:
            event[n], kind[n] = first + order[held], END_OF_HOLD
            held += 1
        elif t_outside == t:
            event[n], kind[n] = outside, INPUT
            outside += 1
        else:
            event[n], kind[n] = arrival, ARRIVAL
            arrival += 1
        n += 1
    return time[:n], event[:n], kind[:n]


@njit(cache=True)
def steps_within(nodes, log, sample, part):
    """`steps_of` all events of a sample of such a run: with ends of hold of carried spikes, without those that come
    later."""
    times, events, kinds = steps_of(nodes, log, sample, log.offsets[1, sample + 1], True)
    carried, last = part.carried[sample], part.carried[sample + 1]
    order, ends = release_order(nodes, log, carried, last)
    size = times.size + ends.size
    time, event, kind = np.empty(size), np.empty(size, np.int64), np.empty(size, np.int64)
    n = own = held = 0
    while own < times.size or held < ends.size:
        end = ends[order[held]] if held < ends.size else np.inf
        is_own = held == ends.size
        if own < times.size and not is_own:
            is_own = times[own] < end or (times[own] == end and kinds[own] <= END_OF_HOLD)
        if is_own:
            time[n], event[n], kind[n] = times[own], events[own], kinds[own]
            own += 1
            n += kind[n] != END_OF_HOLD or time[n] < part.end[sample]
        else:
            time[n], event[n], kind[n] = end, carried + order[held], END_OF_HOLD
            held += 1
            n += -np.inf < end < part.end[sample]
    return time[:n], event[:n], kind[:n]


@njit(cache=True)
def release_order(nodes, log, first, last):
    """Spikes first..last - 1 in the order in which their holds end; times of those ends, by spike."""
    ends = np.empty(last - first)
    in_order = True
    for k in range(first, last):
        event = log.events[k]
        ends[k - first] = event.time + nodes[event.unit].t_ref
        in_order = in_order and (k == first or ends[k - first] >= ends[k - first - 1])  # mutant: sorts what is in order
    order = np.arange(last - first) if in_order else np.argsort(ends, kind="mergesort")
    return order, ends


@piece
def source_of(graph, log, k):
    """The source number of event k of a log: from outside, or a unit of the graph."""
    n_external = graph.rows.size - 1 - graph.nodes.size
    return log.events[k].unit if k < log.offsets[0, -1] else n_external + log.events[k].unit
