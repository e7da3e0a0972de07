"""The proof, after the fact, that spikes are those of the network: nothing here is shared with what found them."""
