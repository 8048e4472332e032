"""Deterministic simulation of closings: the real handlers over models of Restate, Genius and PostgreSQL."""
