"""The response of the membrane to an alpha synapse, and its slopes (design 3, "Alpha synapses").

An alpha synapse has a second variable A beside its current I, with the same rate alpha = 1/tau_syn:

    A' = -alpha A,    I' = alpha (A - I),    V' = I - beta V

An arrival adds its weight w to A. So its current is w alpha t exp(-alpha t), of the same area as w exp(-alpha t).
"""

import math

from fireprop.kernels.bits import fma
from fireprop.kernels.compiling import inlined, njit
from fireprop.kernels.exponential import decay, loss

PEAK = 0.36787944117144233  # 1/e: of the current after a unit of A
C0, C1, C2, C3, C4, C5, C6, C7, C8, C9, C10, C11, C12, C13, C14, C15, C16, C17 = (  # of the series of M_2
    1.0 / (math.factorial(n) * (n + 3)) for n in range(18)
)


@inlined
def responses(gap, alpha, beta):
    """What is left of A over `gap`, of V, and what a unit of A adds to I, and to V; h of a unit of I.

    Returns (a, b, lag, h, k): A <- a A, I <- a I + lag A, V <- b V + h I + k A. With the moments M_n of `moments`, of
    x = |alpha - beta| gap, and s = exp(-min(alpha, beta) gap):

        lag = alpha gap a,   h = gap s M_0,   k = alpha gap^2 s M_1, or with M_0 - M_1 if alpha < beta
    """
    a, b = decay(alpha * gap), decay(beta * gap)
    m0, m1, _ = moments(abs(alpha - beta) * gap)
    part = gap * (a if a > b else b)
    turned = alpha * gap
    return a, b, turned * a, part * m0, turned * (part * (m1 if alpha > beta else m0 - m1))


@inlined
def response_slopes(gap, alpha, beta):
    """dh/dalpha, dh/dbeta, dk/dalpha and dk/dbeta of `responses`, smooth through alpha = beta.

    k is the integral of alpha s exp(-alpha s) exp(-beta (gap - s)) over s in [0, gap]; a derivative brings another
    factor -s or -(gap - s).
    """
    m0, m1, m2 = moments(abs(alpha - beta) * gap)
    part = gap * decay((alpha if alpha < beta else beta) * gap)
    near = m1 if alpha > beta else m0 - m1  # of s
    far = m0 - m1 if alpha > beta else m1  # of gap - s
    square = m2 if alpha > beta else m0 - 2.0 * m1 + m2  # of s^2
    turned = alpha * gap
    return (
        -gap * (part * near),
        -gap * (part * far),
        gap * (part * (near - turned * square)),
        -gap * (turned * (part * (m1 - m2))),
    )


@njit(nogil=True)
def each_response(gaps, alphas, betas, out):
    """What a spike of weight 1 adds to V after every gap, and its derivatives by gap, alpha and beta: out (4, n)."""
    for k in range(gaps.size):
        _, _, lag, _, out[0, k] = responses(gaps[k], alphas[k], betas[k])
        out[1, k] = lag - betas[k] * out[0, k]
        _, _, out[2, k], out[3, k] = response_slopes(gaps[k], alphas[k], betas[k])


@njit(cache=True)
def peak(alpha, beta):
    """When V peaks after a spike of weight 1, and how high: where I = beta V, by bisection. I peaks earlier, at
    1/alpha."""
    low, high = 1.0 / alpha, 40.0 * (1.0 / alpha + 1.0 / beta)
    for _ in range(60):
        middle = 0.5 * (low + high)
        _, _, current, _, v = responses(middle, alpha, beta)
        if current > beta * v:
            low = middle
        else:
            high = middle
    return low, responses(low, alpha, beta)[4]


@inlined
def moments(x):
    """M_n, the integrals of v^n exp(-x v) over v in [0, 1], n = 0, 1, 2, for x >= 0.

    Upwards from M_0 by n M_(n-1) = x M_n + exp(-x) where x is large, downwards from the series of M_2 elsewhere.
    """
    rest = decay(x)
    if x > 1.0:
        m0 = loss(x) / x
        m1 = (m0 - rest) / x
        return m0, m1, (2.0 * m1 - rest) / x
    m2 = _second_moment(-x)
    m1 = 0.5 * (x * m2 + rest)
    return x * m1 + rest, m1, m2


@inlined
def _second_moment(y):
    """M_2 at -y, |y| <= 1: the sum of y^n / (n! (n + 3)), in pairs; the next term is below 2^-53 of it."""
    y2 = y * y
    y4 = y2 * y2
    y8 = y4 * y4
    first = fma(y4, fma(y2, fma(y, C7, C6), fma(y, C5, C4)), fma(y2, fma(y, C3, C2), fma(y, C1, C0)))
    second = fma(y4, fma(y2, fma(y, C15, C14), fma(y, C13, C12)), fma(y2, fma(y, C11, C10), fma(y, C9, C8)))
    return fma(y8 * y8, fma(y, C17, C16), fma(y8, second, first))
