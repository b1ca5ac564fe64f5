"""Virtual keys, their budgets, and how the proxy enforces them."""
