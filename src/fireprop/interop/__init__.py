"""Other simulators of the same networks: what they find, and what their spikes are worth to a gradient."""
