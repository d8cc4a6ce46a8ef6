"""Wiring: Prefect flows, DVC and the command line. The only package that imports prefect or dvc."""
