"""Exported files as models: in Python, and in the test loop of MMEngine."""

from mmqnet.export.backends import BACKENDS
from mmqnet.export.runtime.classifier import ExportedClassifier
from mmqnet.export.runtime.detector import ExportedDetector
from mmqnet.export.runtime.evaluation import evaluate_exported
from mmqnet.export.runtime.raw_detector import ExportedRawDetector
from mmqnet.export.runtime.sessions import open_session

__all__ = [
    'BACKENDS',
    'ExportedClassifier',
    'ExportedDetector',
    'ExportedRawDetector',
    'evaluate_exported',
    'open_session',
]
