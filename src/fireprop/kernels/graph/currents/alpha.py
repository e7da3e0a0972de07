"""Alpha currents: channels come in pairs, each a current I and the A that drives it (`kernels.alpha`; design 3).

Channel first_channel + 2 j is a current, the next one its A, of the same rate. An alpha synapse adds to A. A synapse
that is no alpha synapse, a bias and an initial current add to I. `kernels.graph.flow` says what each function is for.
"""

from fireprop.kernels.alpha import PEAK, response_slopes, responses
from fireprop.kernels.compiling import called, inlined, piece
from fireprop.kernels.exponential import decay
from fireprop.kernels.graph.channels import kept
from fireprop.kernels.graph.currents import exponential
from fireprop.kernels.lanes import in_state

CHANNELS = 2  # for each tau_syn


@inlined
def drives(node, c):
    """Whether channel c of a unit is the A of a pair."""
    return (c - node.first_channel) % 2 == 1


@inlined
def pairs_of(node):
    """The currents of a unit whose channels come in pairs."""
    return range(node.first_channel, node.first_channel + node.n_channels, 2)


@inlined
def decayed(i, drive, alpha, gap):
    """A current and what drives it, a while later."""
    a = decay(alpha * gap)
    return (i + alpha * gap * drive) * a, drive * a


@inlined
def remembered(memo, pair, gap, alpha, beta):
    """`responses` of the pair of this number in its unit, which are found only if they are others than the last."""
    last = memo[memo.size - 1 - pair]
    if last.gap != gap or last.alpha != alpha or last.beta != beta:
        last.gap, last.alpha, last.beta = gap, alpha, beta
        last.a, last.b, last.lag, last.h, last.k = responses(gap, alpha, beta)
    return last.a, last.b, last.lag, last.h, last.k


# ----------------------------------------------------------------------------------------------------------- the state


@called
def current_after(channels, node, gap):
    total = 0.0
    for c in pairs_of(node):
        total += decayed(channels[c].i, channels[c + 1].i, channels[c].alpha, gap)[0]
    return total


@called
def set_base_after(channels, node, gap):
    for c in pairs_of(node):
        current, drive = channels[c], channels[c + 1]
        current.base_i, drive.base_i = decayed(current.i, drive.i, current.alpha, gap)


@called
def decay_base(channels, node, gap):
    for c in pairs_of(node):
        current, drive = channels[c], channels[c + 1]
        current.base_i, drive.base_i = decayed(current.base_i, drive.base_i, current.alpha, gap)


@called
def base_current(channels, node):
    total = 0.0
    for c in pairs_of(node):
        total += channels[c].base_i
    return total


@called
def state_after(channels, node, gap):
    b, v, i = decay(node.beta * gap) if node.n_channels == 0 else 1.0, 0.0, 0.0
    for c in pairs_of(node):
        current, drive = channels[c], channels[c + 1]
        a, b, lag, h, k = responses(gap, current.alpha, node.beta)
        v += h * current.base_i + k * drive.base_i
        i += a * current.base_i + lag * drive.base_i
    return b * node.base_v + v, i


@called
def calm_slope_after(channels, node, gap):
    slope = -node.beta * decay(node.beta * gap) * node.base_v
    for c in pairs_of(node):
        current, drive = channels[c], channels[c + 1]
        a, b, lag, h, k = responses(gap, current.alpha, node.beta)
        slope += current.base_i * (a - node.beta * h if current.alpha > 0.0 else b)
        slope += drive.base_i * (lag - node.beta * k)
    return slope


@called
def fade(channels, node, gap, single):
    for c in pairs_of(node):
        current, drive = channels[c], channels[c + 1]
        i, a = decayed(current.i, drive.i, current.alpha, gap)
        current.i, drive.i = in_state(i, single), in_state(a, single)


@called
def move(node, channels, memo, t, single):
    gap, v = t - node.at, 0.0
    b = decay(node.beta * gap) if node.n_channels == 0 else 1.0
    for pair in range(node.n_channels // 2):
        c = node.first_channel + 2 * pair
        current, drive = channels[c], channels[c + 1]
        a, b, lag, h, k = remembered(memo, pair, gap, current.alpha, node.beta)
        v += h * current.i + k * drive.i
        current.i = in_state(a * current.i + lag * drive.i, single)
        drive.i = in_state(a * drive.i, single)
    v = b * node.v + v
    node.v = kept(v, node.theta, single)
    return v


# ------------------------------------------------------------------------------------------------- bounds and crossings


@called
def driven(channels, node, at_base):
    """A unit of A brings a current of 1/e at most, and V no higher than a unit of I would."""
    drive, lift = 0.0, 0.0
    for c in pairs_of(node):
        current, source = channels[c], channels[c + 1]
        i = max(current.base_i if at_base else current.i, 0.0)
        a = max(source.base_i if at_base else source.i, 0.0)
        drive += i + PEAK * a
        lift += i * current.reach + a * source.reach
    return drive, lift


@called
def sizes(channels, node, size, height):
    current, lift = 0.0, 0.0
    for c in pairs_of(node):
        i, a = abs(channels[c].base_i), abs(channels[c + 1].base_i)
        current += i + PEAK * a
        lift += i * channels[c].reach + a * channels[c + 1].reach
    return size + current + node.beta * lift, height + lift


@called
def falls(channels, node, gap):
    fall = 0.0
    for c in pairs_of(node):
        alpha = channels[c].alpha
        i, a = channels[c].base_i, channels[c + 1].base_i
        fall += alpha * (i + (alpha * gap - 1.0) * a) * decay(alpha * gap)
    return fall > 0.0


@called
def never_turns(channels, node):
    """No current is negative, and none is driven."""
    for c in pairs_of(node):
        if channels[c].base_i < 0.0 or channels[c + 1].base_i != 0.0:
            return False
    return True


@called
def rung(channels, node, number, t):
    """-I' is a sum of (c_0 + c_1 t) exp(-alpha t).

    To divide by the exponential of one more channel, of rate r, and to differentiate turns (c_0, c_1) into
    ((r - alpha) c_0 + c_1, (r - alpha) c_1). The two channels of a pair take its two terms.
    """
    first = node.first_channel
    slowest, total = channels[first + number].alpha, 0.0
    for c in pairs_of(node):
        if c + 1 < first + number:
            continue
        alpha = channels[c].alpha
        one = alpha * alpha * channels[c + 1].base_i
        zero = alpha * (channels[c].base_i - channels[c + 1].base_i)
        for j in range(first, first + number):
            rate = channels[j].alpha - alpha
            zero, one = rate * zero + one, rate * one
        total += (zero + one * t) * decay((alpha - slowest) * t)
    return total


# --------------------------------------------------------------------------------------------------- derivative walks


@called
def move_forward(own, currents, first, memo, gap):
    b, v = decay(own.beta * gap) if own.n_channels == 0 else 1.0, 0.0
    for pair in range(own.n_channels // 2):
        current, drive = currents[first + 2 * pair], currents[first + 2 * pair + 1]
        a, b, lag, h, k = remembered(memo, pair, gap, current.alpha, own.beta)
        v += h * current.value + k * drive.value
        current.value = a * current.value + lag * drive.value
        drive.value *= a
    own.v = b * own.v + v


@called
def move_backward(own, currents, first, memo, gap):
    b = decay(own.beta * gap) if own.n_channels == 0 else 1.0
    for pair in range(own.n_channels // 2):
        current, drive = currents[first + 2 * pair], currents[first + 2 * pair + 1]
        a, b, lag, h, k = remembered(memo, pair, gap, current.alpha, own.beta)
        drive.value = a * drive.value + lag * current.value + k * own.v
        current.value = a * current.value + h * own.v
    own.v *= b


@called
def drive_tangents(own, currents, base, along, first, u, memo, gap):
    d_beta = along.beta[u]
    own.v -= gap * d_beta * decay(own.beta * gap) * base.nodes[u].v
    for c in range(first, first + own.n_channels, 2):
        alpha, d_alpha, i, drive = currents[c].alpha, along.alpha[c], base.currents[c].value, base.currents[c + 1].value
        a, _, lag, _, _ = remembered(memo, (c - first) // 2, gap, alpha, own.beta)
        h_by_alpha, h_by_beta, k_by_alpha, k_by_beta = response_slopes(gap, alpha, own.beta)
        own.v += (h_by_alpha * d_alpha + h_by_beta * d_beta) * i + (k_by_alpha * d_alpha + k_by_beta * d_beta) * drive
        # Of a (I + alpha gap A): a falls, and alpha gap grows.
        currents[c].value += gap * d_alpha * ((a - lag) * drive - a * i)
        currents[c + 1].value -= gap * d_alpha * a * drive


@called
def move_rates_backward(own, currents, by, first, u, memo, gap):
    b, by_v = decay(own.beta * gap) if own.n_channels == 0 else 1.0, by.v[u]
    for pair in range(own.n_channels // 2):
        current, drive = currents[first + 2 * pair], currents[first + 2 * pair + 1]
        by_i, by_drive = by.currents[first + 2 * pair], by.currents[first + 2 * pair + 1]
        a, b, lag, h, k = remembered(memo, pair, gap, current.alpha, own.beta)
        h_by_alpha, h_by_beta, k_by_alpha, k_by_beta = response_slopes(gap, current.alpha, own.beta)
        by_drive.by_beta = a * by_drive.by_beta + lag * by_i.by_beta + k * by_v + k_by_beta * own.v
        by_i.by_beta = a * by_i.by_beta + h * by_v + h_by_beta * own.v
        # Of a, which falls with alpha, and of lag = alpha gap a.
        by_drive.by_alpha = (
            a * (by_drive.by_alpha - gap * drive.value) + lag * by_i.by_alpha + gap * (a - lag) * current.value
            + k_by_alpha * own.v
        )  # fmt: skip
        by_i.by_alpha = a * (by_i.by_alpha - gap * current.value) + h_by_alpha * own.v
    by.v[u] = b * (by_v - gap * own.v)


@piece
def arrive_forward(own, current, currents, node, c, w, d_w, d_t):
    if drives(node, c):
        current.value += d_w + current.alpha * w * d_t
        currents[c - 1].value -= current.alpha * w * d_t
    else:
        exponential.arrive_forward(own, current, w, d_w, d_t)


@piece
def arrive_backward(own, current, currents, node, c):
    if drives(node, c):
        return current.alpha * current.value - current.alpha * currents[c - 1].value
    return exponential.arrive_backward(own, current)


@piece
def channel_ahead(node, c, alpha, w):
    if drives(node, c):
        return c - 1, alpha * w
    return exponential.channel_ahead(w)


@piece
def take(node, d_i, c, alpha, w, d_t):
    if drives(node, c):
        d_i[c - 1] -= alpha * w * d_t
        return 0.0
    return exponential.take(w, d_t)


@called
def move_rows(graph, sensitivity, u, gap):
    node, low, high = graph.nodes[u], sensitivity.low[u], sensitivity.high[u]
    v, b = sensitivity.v[u], decay(node.beta * gap)
    for p in range(low, high):
        v[p] *= b
    for c in pairs_of(node):
        a, _, lag, h, k = responses(gap, graph.channels[c].alpha, node.beta)
        i, drive = sensitivity.i[c], sensitivity.i[c + 1]
        for p in range(low, high):
            v[p] += h * i[p] + k * drive[p]
            i[p] = a * i[p] + lag * drive[p]
            drive[p] *= a


@called
def total(node, i):
    found = 0.0
    for c in pairs_of(node):
        found += i[c]
    return found


@piece
def potentials_after(channels, node, v, d_v, i, d_i, gap):
    return _potential_after(channels, node, v, i, gap), _potential_after(channels, node, d_v, d_i, gap)


@called
def _potential_after(channels, node, v, i, gap):
    b, brought = decay(node.beta * gap), 0.0
    for c in pairs_of(node):
        _, _, _, h, k = responses(gap, channels[c].alpha, node.beta)
        brought += h * i[c] + k * i[c + 1]
    return b * v + brought


@piece
def decay_all(channels, node, i, d_i, gap):
    _decay(channels, node, i, gap)
    _decay(channels, node, d_i, gap)


@called
def _decay(channels, node, i, gap):
    for c in pairs_of(node):
        i[c], i[c + 1] = decayed(i[c], i[c + 1], channels[c].alpha, gap)


@inlined
def left_current(turned):
    return turned


@inlined
def left_response(gap, turned, alpha, beta):
    _, _, _, h, k = responses(gap, alpha, beta)
    return turned * h + k


@called
def feeding(node, c, t, arrival, restart, alpha, beta):
    if not drives(node, c):
        return exponential.feeding(t, arrival, restart, alpha, beta)
    late = max(arrival, restart)
    left, wait = decay(alpha * (late - arrival)), alpha * (late - arrival)
    a, _, lag, h, k = responses(t - late, alpha, beta)
    y = left * (h * wait + k)
    rise = left * (a * wait + lag) - beta * y
    return y, rise, alpha * (y - left * h) if restart > arrival else -rise
