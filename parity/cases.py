"""The networks that every source simulates, as plain numbers: standard library only.

A network is a dict: `n_inputs`, `populations` and `connections`. A population has name, size, tau_mem, v_threshold and
t_ref, and, if it adapts, adaptation and tau_adapt; each is a number or one for each unit. A connection has pre, post,
weight (out, in), tau_syn, a number or (out, in), and where it has one a delay, likewise. All numbers are doubles, meant
exactly. Delays are multiples of 2^-5, which the grids of NEST and Brian2 hold exactly.
"""

from random import Random

RATIOS = {
    "1": 1.0,
    "1_minus_1e-12": 1.0 - 1e-12,
    "1_plus_1e-12": 1.0 + 1e-12,
    "1_minus_1e-6": 1.0 - 1e-6,
    "1_plus_1e-6": 1.0 + 1e-6,
    "2": 2.0,
    "half": 0.5,
    "1e3": 1e3,
    "1e-3": 1e-3,
}


def two_layers(tau_syn=0.5, t_ref=0.0, seed=6):
    """3 inputs, 4 and 2 units, each firing several times; a fifth of the weights inhibit."""
    rng = Random(f"two layers {seed}")
    hidden, out = population("hidden", 4, t_ref=t_ref), population("out", 2, t_ref=t_ref)
    connections = [
        connection(rng, "input", "hidden", 4, 3, mean=2.0, spread=3.0, tau_syn=tau_syn),
        connection(rng, "hidden", "out", 2, 4, mean=0.8, spread=1.0, tau_syn=tau_syn),
    ]
    return case(rng, 3, [hidden, out], connections, t_end=3.0)


def recurrent(tau_syn=0.5, t_ref=0.0, seed=7):
    """3 units that reach one another and themselves, with excitation and inhibition."""
    rng = Random(f"recurrent {seed}")
    connections = [
        connection(rng, "input", "units", 3, 3, mean=4.0, spread=2.0, tau_syn=tau_syn),
        connection(rng, "units", "units", 3, 3, mean=-0.3, spread=1.5, tau_syn=tau_syn),
    ]
    return case(rng, 3, [population("units", 3, t_ref=t_ref)], connections, t_end=2.5)


def per_unit(hold=True):
    """Two populations that reach each other and themselves, every constant of every unit its own."""
    rng = Random("per unit")
    t_ref = [0.0, 0.1, 0.25, 0.05, 0.0] if hold else [0.0] * 5
    first = population("first", 3, tau_mem=[0.7, 1.0, 1.6], v_threshold=[0.8, 1.0, 1.3], t_ref=t_ref[:3])
    second = population("second", 2, tau_mem=[0.5, 1.2], v_threshold=[1.1, 0.9], t_ref=t_ref[3:])
    connections = [
        connection(rng, "input", "first", 3, 3, mean=4.0, spread=2.0, tau_syn=0.5),
        connection(rng, "first", "first", 3, 3, mean=-0.5, spread=1.0, tau_syn=0.5),
        connection(rng, "first", "second", 2, 3, mean=3.0, spread=2.0, tau_syn=0.4),
        connection(rng, "second", "first", 3, 2, mean=-1.0, spread=0.5, tau_syn=0.5),
    ]
    return case(rng, 3, [first, second], connections, t_end=2.5)


def several_tau_syn():
    """Every synapse has one of three tau_syn, one of which is the tau_mem of two of the units."""
    rng = Random("several tau_syn 6")
    units = population("units", 3, tau_mem=[1.0, 0.4, 0.4], t_ref=[0.0, 0.1, 0.0])
    taus = [[rng.choice([0.4, 0.7, 1.5]) for _ in range(3)] for _ in range(6)]
    connections = [
        connection(rng, "input", "units", 3, 3, mean=2.0, spread=2.0, tau_syn=taus[:3]),
        connection(rng, "units", "units", 3, 3, mean=-0.2, spread=0.7, tau_syn=taus[3:]),
    ]
    return case(rng, 3, [units], connections, t_end=2.5)


def burst():
    """One unit that two strong inputs drive through dozens of spikes, and one that hears it."""
    rng = Random("burst")
    connections = [
        {"pre": "input", "post": "burst", "weight": [[38.0, 27.0]], "tau_syn": 0.7},
        {"pre": "burst", "post": "out", "weight": [[0.4]], "tau_syn": 0.7},
    ]
    inputs = {"times": [0.1, 0.8], "units": [0, 1]}
    return case(rng, 2, [population("burst", 1), population("out", 1)], connections, t_end=2.5, inputs=inputs)


def ratio(name):
    """2 inputs, 2 units and 1: tau_syn is tau_mem times the ratio. Weights scale with the height of a response."""
    rng = Random("ratio")
    tau_syn = RATIOS[name]
    gain = peak_of_equal_taus() / peak(tau_syn)
    connections = [
        {"pre": "input", "post": "hidden", "weight": scaled(gain, [[6.5, 2.0], [-1.5, 7.0]]), "tau_syn": tau_syn},
        {"pre": "hidden", "post": "out", "weight": scaled(gain, [[1.6, 2.4]]), "tau_syn": tau_syn},
    ]
    inputs = {"times": [0.125, 0.625, 1.375], "units": [0, 1, 0]}
    return case(rng, 2, [population("hidden", 2), population("out", 1)], connections, t_end=3.0, inputs=inputs)


def near_graze():
    """Peaks that clear the threshold, and miss it, by a millionth of it; a third unit hears the one that fires.

    tau_mem = 1, tau_syn = 1/2: the response to a weight w peaks at w / 4.
    """
    distance = 1e-6
    connections = [
        {"pre": "input", "post": "grazing", "weight": [[4 * (1 + distance)], [4 * (1 - distance)]], "tau_syn": 0.5},
        {"pre": "grazing", "post": "out", "weight": [[6.0, 6.0]], "tau_syn": 0.5},
    ]
    populations = [population("grazing", 2), population("out", 1)]
    inputs = {"times": [0.25], "units": [0]}
    return case(Random("near graze"), 1, populations, connections, t_end=3.0, inputs=inputs)


def delayed_two_layers():
    """The two layers, every synapse with a delay of its own."""
    made = two_layers(t_ref=0.1)
    for c in made["network"]["connections"]:
        c["delay"] = delays(Random(f"delays {c['pre']}"), len(c["weight"]), len(c["weight"][0]))
    return made


def delayed_recurrent(inhibitory=0.8):
    """4 units that reach one another and themselves, every synapse with a delay of its own, tau_mem of each unit.

    An excitatory synapse has tau_syn = 0.5. No delay of a unit to itself is its hold, where derivatives are one-sided.
    """
    rng = Random("delayed recurrent")
    units = population("units", 4, tau_mem=[0.75, 1.0, 1.25, 1.5], t_ref=0.109375)
    connections = [
        connection(rng, "input", "units", 4, 3, mean=3.0, spread=2.0, tau_syn=0.5),
        connection(rng, "units", "units", 4, 4, mean=0.2, spread=1.2, tau_syn=0.5),
    ]
    for c in connections:
        c["tau_syn"] = [[0.5 if w >= 0.0 else inhibitory for w in row] for row in c["weight"]]
        c["delay"] = delays(rng, len(c["weight"]), len(c["weight"][0]))
    return case(rng, 3, [units], connections, t_end=3.0)


def delayed_populations():
    """3 excitatory and 2 inhibitory units, each population reaching both: delays of one number, and of synapses."""
    rng = Random("delayed populations")
    excitatory = population("excitatory", 3, tau_mem=1.0, v_threshold=[0.9, 1.0, 1.1], t_ref=0.078125)
    inhibitory = population("inhibitory", 2, tau_mem=0.75, t_ref=0.046875)
    connections = [
        connection(rng, "input", "excitatory", 3, 3, mean=4.0, spread=1.0, tau_syn=0.5, delay=0.03125),
        connection(rng, "excitatory", "excitatory", 3, 3, mean=1.0, spread=0.3, tau_syn=0.5, delay=delays(rng, 3, 3)),
        connection(rng, "excitatory", "inhibitory", 2, 3, mean=2.0, spread=0.5, tau_syn=0.5, delay=0.0625),
        connection(rng, "inhibitory", "excitatory", 3, 2, mean=-1.5, spread=0.3, tau_syn=0.8, delay=delays(rng, 3, 2)),
        connection(rng, "inhibitory", "inhibitory", 2, 2, mean=-0.6, spread=0.2, tau_syn=0.8, delay=0.09375),
    ]
    return case(rng, 3, [excitatory, inhibitory], connections, t_end=3.0)


def slow_adaptation():
    """3 units that reach one another, and adapt: each spike takes a current of their own down, which is slow to fade.

    One tau_adapt is a tau_mem, one is the tau_syn.
    """
    rng = Random("adapting")
    units = population("units", 3, tau_mem=[0.8, 1.0, 1.4], t_ref=[0.0, 0.125, 0.0625])
    units |= {"adaptation": [0.9, 0.6, 0.4], "tau_adapt": [4.0, 1.0, 0.5]}
    connections = [
        connection(rng, "input", "units", 3, 3, mean=4.0, spread=1.5, tau_syn=0.5),
        connection(rng, "units", "units", 3, 3, mean=0.1, spread=0.5, tau_syn=0.5),
    ]
    return case(rng, 3, [units], connections, t_end=3.0)


def slow_adaptation_delayed():
    """4 units that excite one another late, and adapt. No synapse inhibits, so NEST can have the current, too."""
    rng = Random("adapting delayed")
    units = population("units", 4, tau_mem=[0.75, 1.0, 1.25, 1.5], t_ref=0.109375)
    units |= {"adaptation": [0.8, 0.5, 0.3, 0.6], "tau_adapt": 4.0}
    connections = [
        connection(rng, "input", "units", 4, 3, mean=4.0, spread=0.8, tau_syn=0.5, delay=0.03125),
        connection(rng, "units", "units", 4, 4, mean=0.4, spread=0.1, tau_syn=0.5, delay=delays(rng, 4, 4)),
    ]
    return case(rng, 3, [units], connections, t_end=3.0)


# ------------------------------------------------------------------------------------------------------------ parts


def population(name, size, *, tau_mem=1.0, v_threshold=1.0, t_ref=0.0):
    return {"name": name, "size": size, "tau_mem": tau_mem, "v_threshold": v_threshold, "t_ref": t_ref}


def connection(rng, pre, post, n_out, n_in, *, mean, spread, tau_syn, delay=None):
    weight = [[round(rng.gauss(mean, spread), 3) for _ in range(n_in)] for _ in range(n_out)]
    made = {"pre": pre, "post": post, "weight": weight, "tau_syn": tau_syn}
    return made if delay is None else {**made, "delay": delay}


def delays(rng, n_out, n_in):
    """Of each synapse, 1 to 16 times 2^-5."""
    return [[rng.randint(1, 16) / 32 for _ in range(n_in)] for _ in range(n_out)]


def case(rng, n_inputs, populations, connections, *, t_end, inputs=None):
    """A network and its inputs: two spikes of each input unit, unless they are given, in order of time."""
    if inputs is None:
        events = sorted((round(rng.uniform(0.05, 1.2), 4), j) for j in range(n_inputs) for _ in range(2))
        inputs = {"times": [t for t, _ in events], "units": [j for _, j in events]}
    network = {"n_inputs": n_inputs, "populations": populations, "connections": connections}
    return {"network": network, "inputs": inputs, "t_end": t_end}


def scaled(gain, weight):
    return [[round(gain * w, 6) for w in row] for row in weight]


def peak(tau_syn):
    """About the peak of the response of a membrane with tau_mem = 1; good to the digits that weights are given with."""
    if abs(tau_syn - 1.0) < 1e-3:
        return peak_of_equal_taus()
    return tau_syn ** (1.0 / (1.0 - tau_syn))


def peak_of_equal_taus():
    return 0.36787944117144233


def losses(case_name, spikes):
    """The coefficients of a random linear functional of all spike times, in the layout of the spikes themselves."""
    rng = Random(f"loss {case_name}")
    return {
        name: [[round(rng.uniform(-1.0, 1.0), 3) for _ in times] for times in trains] for name, trains in spikes.items()
    }
