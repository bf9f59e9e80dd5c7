"""Exporting a trained model: writers of files for other runtimes, and running these.

The packages that a format needs are imported where it is written: ``pip install mmqnet[export]``.
"""
