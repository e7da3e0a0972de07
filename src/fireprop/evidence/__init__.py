"""Evidence that fireprop is right, and the experiments of the paper. Training and simulation need nothing of it.

`verify` puts the evidence into one table: `parity` with other programs, `gradchecks` and `certificates` of
`random_networks`. `insights` shows the claims of the paper, and `experiments` repeats its experiments. To check a
network of your own, use `fireprop.gradcheck`, `fireprop.certify` and `fireprop.validity`.
"""
