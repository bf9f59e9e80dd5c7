"""One HTML page about a checkpoint: its layers, functions, training and detections."""

from mmqnet.visualization.report.facts import QuantizerFacts, activation_facts, weight_facts
from mmqnet.visualization.report.make import check_page_path, make_report
from mmqnet.visualization.report.page import Picture, Report, report_page

__all__ = [
    'Picture',
    'QuantizerFacts',
    'Report',
    'activation_facts',
    'check_page_path',
    'make_report',
    'report_page',
    'weight_facts',
]
