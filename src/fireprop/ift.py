"""The explicit system."""
