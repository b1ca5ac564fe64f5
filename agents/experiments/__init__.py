"""Experiments that measure how models choose: suites, designs, trials, measures, inference, report."""
