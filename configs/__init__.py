"""Data shipped with the toolkit: the model catalogue, example settings, suites."""
