"""What the kinds of synaptic current do, one file for each kind. `kernels.graph.flow` asks the one that a unit has."""
