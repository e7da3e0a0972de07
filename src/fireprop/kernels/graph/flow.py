"""What the currents of a unit do between arrivals, and to V: one place where the passes over a graph ask for it.

A unit is linear between events: its channels move by a closed form over any gap, and so does V, which they drive
(design 3). What its channels are is the kind of its currents, NODE.kind. `currents/` has one file for each kind, with a
function of the same name for each one here that asks for the kind. No pass over a graph does.

The channels of one tau_syn stand next to one another: first a current, which drives V, then what drives that. A
synapse of the unit's kind adds to the last one. An exponential synapse, a bias and an initial current add to the
current itself. A unit of one channel has an exponential current, so `state.py` and `walk.py` take its steps from two
or three records, and `blocks.py` in vectors.
"""

from fireprop.kernels.compiling import inlined, piece
from fireprop.kernels.graph.currents import alpha, exponential

EXPONENTIAL, ALPHA = range(2)  # NODE.kind
CHANNELS = (exponential.CHANNELS, alpha.CHANNELS)  # of a unit for each of its tau_syn, by kind


# -------------------------------------------------------------------------------------------------------- the channels


@piece
def moves_in_lanes(node):
    """Whether blocks have vector passes for the currents of a unit."""
    return node.kind == EXPONENTIAL


@piece
def entry(node, c, kind):
    """The channel of a unit to which a synapse of a kind adds, c being any channel of its tau_syn: the last one, or the
    current itself."""
    n = CHANNELS[node.kind]
    return c - (c - node.first_channel) % n + (n - 1 if kind == node.kind else 0)


@piece
def decays_alone(node, c):
    """Whether channel c, if no other flows, is a current that decays exponentially."""
    return not (node.kind == ALPHA and alpha.drives(node, c))


# ----------------------------------------------------------------------------------------------------------- the state


@piece
def current_after(channels, node, gap):
    """The whole current a while after the last arrival of a unit."""
    if node.kind == ALPHA:
        return alpha.current_after(channels, node, gap)
    return exponential.current_after(channels, node, gap)


@piece
def set_base_after(channels, node, gap):
    """Set the channels of the base to what those at the last arrival are a while later."""
    if node.kind == ALPHA:
        alpha.set_base_after(channels, node, gap)
    else:
        exponential.set_base_after(channels, node, gap)


@piece
def decay_base(channels, node, gap):
    """Let the channels of the base be those a while later."""
    if node.kind == ALPHA:
        alpha.decay_base(channels, node, gap)
    else:
        exponential.decay_base(channels, node, gap)


@piece
def base_current(channels, node):
    """The whole current at the base of a unit."""
    if node.kind == ALPHA:
        return alpha.base_current(channels, node)
    return exponential.base_current(channels, node)


@piece
def state_after(channels, node, gap):
    """V and the whole current a while after the base of a unit."""
    if node.kind == ALPHA:
        return alpha.state_after(channels, node, gap)
    return exponential.state_after(channels, node, gap)


@piece
def calm_slope_after(channels, node, gap):
    """V' a while after the base, without the difference of equal numbers that a constant current leaves."""
    if node.kind == ALPHA:
        return alpha.calm_slope_after(channels, node, gap)
    return exponential.calm_slope_after(channels, node, gap)


@piece
def fade(channels, node, gap, single):
    """Let the channels at the last arrival be those a while later."""
    if node.kind == ALPHA:
        alpha.fade(channels, node, gap, single)
    else:
        exponential.fade(channels, node, gap, single)


@piece
def move(node, channels, memo, t, single):
    """Bring V and the channels of a unit that is not refractory, and has moved before, to t; V(t-) in float64."""
    if node.kind == ALPHA:
        return alpha.move(node, channels, memo, t, single)
    return exponential.move(node, channels, memo, t, single)


# ------------------------------------------------------------------------------------------------- bounds and crossings


@piece
def driven(channels, node, at_base):
    """What the whole current and V, each from 0, stay below: sums over what is positive, at the base or the last
    arrival."""
    if node.kind == ALPHA:
        return alpha.driven(channels, node, at_base)
    return exponential.driven(channels, node, at_base)


@piece
def sizes(channels, node, size, height):
    """Bounds of |beta V| + |I| and of |V|, from those that V at the base alone gives."""
    if node.kind == ALPHA:
        return alpha.sizes(channels, node, size, height)
    return exponential.sizes(channels, node, size, height)


@piece
def falls(channels, node, gap):
    """Whether the whole current falls a while after the base."""
    if node.kind == ALPHA:
        return alpha.falls(channels, node, gap)
    return exponential.falls(channels, node, gap)


@piece
def never_turns(channels, node):
    """Whether the whole current surely falls for ever."""
    if node.kind == ALPHA:
        return alpha.never_turns(channels, node)
    return exponential.never_turns(channels, node)


@piece
def rung(channels, node, number, t):
    """A number of the sign of what is left of -I' when so many channels, the slowest, have been divided out.

    It does not underflow: it is scaled to the slowest that remains. There is one rung less than channels.
    """
    if node.kind == ALPHA:
        return alpha.rung(channels, node, number, t)
    return exponential.rung(channels, node, number, t)


# --------------------------------------------------------------------------------------------------- derivative walks


@piece
def move_forward(own, currents, first, memo, gap):
    """Bring the tangents of a unit forwards, of V and of the channels from `first` on: the same flow."""
    if own.kind == ALPHA:
        alpha.move_forward(own, currents, first, memo, gap)
    else:
        exponential.move_forward(own, currents, first, memo, gap)


@piece
def move_backward(own, currents, first, memo, gap):
    """Bring the adjoints of a unit back: the transpose."""
    if own.kind == ALPHA:
        alpha.move_backward(own, currents, first, memo, gap)
    else:
        exponential.move_backward(own, currents, first, memo, gap)


@piece
def drive_tangents(own, currents, base, along, first, u, memo, gap):
    """Add to the tangents of unit u, which have been brought over a gap, what V and the channels before it, those of
    `base`, add along a direction of rates."""
    if own.kind == ALPHA:
        alpha.drive_tangents(own, currents, base, along, first, u, memo, gap)
    else:
        exponential.drive_tangents(own, currents, base, along, first, u, memo, gap)


@piece
def move_rates_backward(own, currents, by, first, u, memo, gap):
    """Bring the derivatives of the adjoints of unit u by its rates back, before these move."""
    if own.kind == ALPHA:
        alpha.move_rates_backward(own, currents, by, first, u, memo, gap)
    else:
        exponential.move_rates_backward(own, currents, by, first, u, memo, gap)


@piece
def arrive_forward(own, current, currents, nodes, synapse, w, d_w, d_t):
    """Arrival rule: the tangents of the channel of a synapse, and of what that drives, of a unit that is there."""
    if own.kind == ALPHA:
        alpha.arrive_forward(own, current, currents, nodes[synapse.target], synapse.channel, w, d_w, d_t)
    else:
        exponential.arrive_forward(own, current, w, d_w, d_t)


@piece
def arrive_backward(own, current, currents, nodes, synapse):
    """Arrival rule: dL/dt of an arrival of weight 1."""
    if own.kind == ALPHA:
        return alpha.arrive_backward(own, current, currents, nodes[synapse.target], synapse.channel)
    return exponential.arrive_backward(own, current)


@piece
def move_rows(graph, sensitivity, u, gap):
    """`forward_propagation.move`, of the columns of a unit that are not 0."""
    if graph.nodes[u].kind == ALPHA:
        alpha.move_rows(graph, sensitivity, u, gap)
    else:
        exponential.move_rows(graph, sensitivity, u, gap)


@piece
def channel_ahead(node, c, rate, w):
    """The channel that channel c, of that rate, drives, or -1 if it drives V; how much of dt an arrival of weight w
    takes from that."""
    if node.kind == ALPHA:
        return alpha.channel_ahead(node, c, rate, w)
    return exponential.channel_ahead(w)


@piece
def take(channels, node, d_i, c, w, d_t):
    """What an arrival that comes d_t later takes from the tangent of V; what it takes from a channel is taken."""
    if node.kind == ALPHA:
        return alpha.take(node, d_i, c, channels[c].alpha, w, d_t)
    return exponential.take(w, d_t)


@piece
def total(node, i):
    """The whole current of a unit, of channels that have the numbers i."""
    if node.kind == ALPHA:
        return alpha.total(node, i)
    return exponential.total(node, i)


@piece
def potentials_after(channels, node, v, d_v, i, d_i, gap):
    """V and its tangent after a gap, from these, and channels that have the numbers i and d_i."""
    if node.kind == ALPHA:
        return alpha.potentials_after(channels, node, v, d_v, i, d_i, gap)
    return exponential.potentials_after(channels, node, v, d_v, i, d_i, gap)


@piece
def decay_all(channels, node, i, d_i, gap):
    """Let the numbers i and d_i of the channels of a unit be those after a gap."""
    if node.kind == ALPHA:
        alpha.decay_all(channels, node, i, d_i, gap)
    else:
        exponential.decay_all(channels, node, i, d_i, gap)


@inlined
def feeding(node, c, t, arrival, restart, rate, beta):
    """What a weight of 1 that arrived at channel c, of that rate, adds to V at t if V is 0 at restart, or, before that,
    at the arrival; and the derivatives of that in t and in the arrival."""
    if node.kind == ALPHA:
        return alpha.feeding(node, c, t, arrival, restart, rate, beta)
    return exponential.feeding(t, arrival, restart, rate, beta)


# --------------------------------------------------------------------------------------------------- a single arrival


@inlined
def left_current(kind, turned):
    """The current so many time constants after a spike of weight 1 at a synapse of a kind, times exp(turned)."""
    if kind == ALPHA:
        return alpha.left_current(turned)
    return exponential.left_current(turned)


@inlined
def left_response(kind, gap, turned, rate, beta):
    """V a gap after it was 0, so many time constants after a spike of weight 1 arrived, times exp(turned)."""
    if kind == ALPHA:
        return alpha.left_response(gap, turned, rate, beta)
    return exponential.left_response(gap, turned, rate, beta)
