"""From connections in rows of receivers to synapses in rows of sources, in time and memory linear in the synapses."""

from fireprop.kernels.compiling import inlined, njit
from fireprop.kernels.graph import flow


@njit(cache=True)
def fault_of(rows, sources, n_in):
    """The first receiver whose sources are not in ascending order within [0, n_in), or whose row is none; -1 if all is
    well."""
    for out in range(rows.size - 1):
        if rows[out] > rows[out + 1] or rows[out] < 0 or rows[out + 1] > sources.size:
            return out
        last = -1
        for k in range(rows[out], rows[out + 1]):
            if not last < sources[k] < n_in:
                return out
            last = sources[k]
    return -1


@njit(cache=True)
def count_synapses(rows, senders, first_source, counts):
    """Add the number of synapses that leave each source s to counts[first_source + s + 1]."""
    for k in range(rows[0], rows[-1]):
        counts[first_source + senders[k] + 1] += 1


@njit(cache=True)
def list_rates(rows, sources, tau_syn, group, first_group, first_target, cursor, rates, groups):
    """Write the rates and groups of the synapses of each receiver to rates[cursor[first_target + out]:], moving the
    cursor on.

    What follows itself is written once, so that this is short where all synapses of a receiver are alike. With no room
    in `rates`, of size 0, it only counts.
    """
    for out in range(rows.size - 1):
        u, last, last_group = first_target + out, -1.0, 0  # mutant: rates are above 0, so the first one differs
        for k in range(rows[out], rows[out + 1]):
            alpha, number = 1.0 / tau_syn[out, sources[k]], first_group + group[out, sources[k]]
            if alpha != last or number != last_group:
                if rates.size > 0:
                    rates[cursor[u]], groups[cursor[u]] = alpha, number
                cursor[u] += 1
                last, last_group = alpha, number


@njit(cache=True)
def lay_synapses(
    rows, sources, senders, turns, tau_syn, group, first_group, ends, place, width, kind, cursor, nodes, channels,
    groups, synapses, order,
):  # fmt: skip
    """Write the synapses of one connection to where the rows of their sources stand, moving the cursor (by source) on.

    senders  what sends to each synapse: its source, or a line
    turns    (out,): the receivers in the order in which a row has them
    ends     (first sender, first target)
    place    of the connection's first weight; width is 0 if its weights are those of its synapses alone, else they are
             (out, width)
    kind     of its synapses
    """
    first_source, first_target = ends
    for out in turns:
        u = first_target + out
        first = nodes[u].first_channel
        c = first
        for k in range(rows[out], rows[out + 1]):
            source = sources[k]
            alpha, number = 1.0 / tau_syn[out, source], first_group + group[out, source]
            if channels[c].alpha != alpha or groups[c] != number:
                low, high = first, first + nodes[u].n_channels
                while high - low > 1:
                    middle = (low + high) // 2
                    found = channels[middle].alpha
                    if found < alpha or (found == alpha and groups[middle] <= number):
                        low = middle
                    else:
                        high = middle
                c = low
            s = cursor[first_source + senders[k]]
            cursor[first_source + senders[k]] += 1
            synapses[s].target = u
            synapses[s].channel = flow.entry(nodes[u], c, kind)
            order[s] = place + (k if width == 0 else out * width + source)


@njit(cache=True)
def pick(values, order, out):
    """out[s] = values[order[s]], without a copy of the indices in another type."""
    for s in range(order.size):
        out[s] = values[order[s]]


@njit(cache=True)
def place(values, order, out):
    """out[order[s]] += values[s], without a copy of the indices in another type: synapses of one weight add up."""
    for s in range(order.size):
        out[order[s]] += values[s]


@njit(cache=True)
def find_blocks(nodes, cells, rows, synapses, of_units, state_source, least, is_block, inner):
    """Which cells are blocks: at least so many units, each of which hears the same sources by the same of its currents,
    and itself besides, and has no initial state; and which of them units reach, other than themselves.

    cells     (n_cells,) CELL
    synapses  those of a source that reach one cell connection by connection
    of_units  (first, stop, first): the lines along which units send, and the units themselves, among the sources
    is_block, inner  (n_cells,) bool: written
    """
    n_left = 0
    for c in range(is_block.size):
        is_block[c] = cells[c].width >= least and _are_alike(nodes, cells[c])
        inner[c] = False
        n_left += is_block[c]
    for source in range(rows.size - 1):
        s, stop = rows[source], rows[source + 1]
        if n_left == 0:
            return
        is_unit = of_units[0] <= source < of_units[1] or source >= of_units[2]
        while s < stop:
            target = synapses[s].target
            c = nodes[target].cell
            if source != state_source and _reaches_all(nodes, cells[c], synapses, s, stop):
                inner[c] |= is_unit
                s += cells[c].width
            elif source - of_units[2] == target:
                s += 1
            else:
                n_left -= is_block[c]
                is_block[c] = False
                while s < stop and nodes[synapses[s].target].cell == c:
                    s += 1


@njit(cache=True)
def _reaches_all(nodes, cell, synapses, first, stop):
    """Whether the synapses from `first` on reach the units of a cell in turn, by the same of their currents."""
    if stop - first < cell.width:
        return False
    place = _place_of(nodes, synapses[first])
    for n in range(cell.width):
        synapse = synapses[first + n]
        if synapse.target != cell.first_unit + n * cell.stride or _place_of(nodes, synapse) != place:
            return False
    return True


@inlined
def _place_of(nodes, synapse):
    """The number of a synapse's current in its unit."""
    return synapse.channel - nodes[synapse.target].first_channel


@njit(cache=True)
def _are_alike(nodes, cell):
    """Whether the units of a cell have as many currents, and one at least, of a kind that moves in lanes."""
    one = nodes[cell.first_unit]
    if not flow.moves_in_lanes(one):
        return False
    for n in range(cell.width):
        node = nodes[cell.first_unit + n * cell.stride]
        if node.n_channels != one.n_channels or one.n_channels == 0:
            return False
    return True
