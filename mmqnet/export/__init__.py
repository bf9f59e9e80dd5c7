"""Exporting a trained model: a reader of its integers, and writers that stand on it.

The packages that a format needs are imported where it is written: ``pip install mmqnet[export]``.
"""
