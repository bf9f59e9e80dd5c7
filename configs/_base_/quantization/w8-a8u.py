# 8 bits and evenly spaced thresholds throughout: integer runtimes execute it directly
_base_ = './w8-a8.py'
quantization = dict(weight=dict(thresholds='uniform'), activation=dict(thresholds='uniform'))
