"""Errors, paths, settings files and units: small, imported by all, imports none of them."""
