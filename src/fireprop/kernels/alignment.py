"""The cheapest way to turn one spike train into another (Victor and Purpura 1996)."""

from fireprop.kernels.compiling import njit


@njit(nogil=True)
def align(times, offsets, others, other_offsets, cost, table, out_partner):
    """Which of `others` each of `times` is moved to, or -1: out_partner (n_times,), of the alignment that costs least.

    offsets, other_offsets  (n_trains + 1,): the trains, each in ascending order
    cost                    of moving a spike by one unit of time; adding or removing one costs 1
    table                   scratch, one more row than the longest train has spikes, one more column than the longest
                            of the others

    A spike is moved where that costs no more than removing it and adding another.
    """
    for c in range(offsets.size - 1):
        a, n = offsets[c], offsets[c + 1] - offsets[c]
        b, m = other_offsets[c], other_offsets[c + 1] - other_offsets[c]
        for j in range(m + 1):
            table[0, j] = j
        for i in range(1, n + 1):
            table[i, 0] = i
            for j in range(1, m + 1):
                move = table[i - 1, j - 1] + cost * abs(times[a + i - 1] - others[b + j - 1])
                table[i, j] = min(move, min(table[i - 1, j], table[i, j - 1]) + 1.0)
        i, j = n, m
        while i > 0:
            if j > 0 and table[i, j] == table[i - 1, j - 1] + cost * abs(times[a + i - 1] - others[b + j - 1]):
                out_partner[a + i - 1] = b + j - 1
                i -= 1
                j -= 1
            elif j > 0 and table[i, j] == table[i, j - 1] + 1.0:  # mutant: the table holds the least of three ways
                j -= 1
            else:
                out_partner[a + i - 1] = -1
                i -= 1
