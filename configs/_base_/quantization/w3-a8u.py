# As w3-a8, with evenly spaced activation thresholds: a runtime quantizes activations by rounding
_base_ = './w3-a8.py'
quantization = dict(activation=dict(thresholds='uniform'))
