"""One file for each kind of server a model can be served by; `discovery` gathers what there is."""
