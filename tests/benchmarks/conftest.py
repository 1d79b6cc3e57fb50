"""Benchmarks are run by hand, each as a script; nothing here is a test."""

collect_ignore_glob = ["*.py"]
