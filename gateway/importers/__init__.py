"""Adapters of the import hook: what puts a linked message on a chart somewhere else."""
