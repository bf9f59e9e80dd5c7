# Weights in float, 2-bit activations; one thing to learn, so no phases
_base_ = './w3-a32.py'
quantization = dict(weight=None, activation=dict(levels='uint2', thresholds='kmeans'))
