"""Proofs of the crossings of large random networks."""

from collections.abc import Callable

import torch

from fireprop import arguments
from fireprop.certify import Certificate, certify_crossings
from fireprop.evidence.random_networks import LARGE


def certify_random_networks(
    n_crossings: int, *, seed: int | torch.Generator = 0, on_progress: Callable[[Certificate], object] | None = None
) -> list[Certificate]:
    """`certify_crossings` on the kinds of `random_networks.LARGE` in turn, until n_crossings spikes are proven in all.

    seed         of a generator of its own, or a generator to draw from
    on_progress  called with each certificate as soon as it is there, for a display that lives

    >>> certificates = certify_random_networks(1000, seed=1)
    >>> all(certificate.passed for certificate in certificates)
    True
    """
    arguments.integer("n_crossings", n_crossings, least=1)
    generator = arguments.generator("seed", seed)
    kinds = list(LARGE.items())
    certificates: list[Certificate] = []
    while sum(certificate.n_spikes for certificate in certificates) < n_crossings:
        name, draw = kinds[len(certificates) % len(kinds)]
        net, inputs, t_end = draw(generator)
        certificates.append(certify_crossings(net, inputs, t_end=t_end, name=name))
        if on_progress is not None:
            on_progress(certificates[-1])
    return certificates
