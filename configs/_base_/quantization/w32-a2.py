# Weights in float, 2-bit activations; one thing to learn, so no phases.
# As the paper trains; at low activation bits start with a recipe `u`, see docs/low_bit.md
_base_ = './w3-a32.py'
quantization = dict(weight=None, activation=dict(levels='uint2', thresholds='kmeans'))
