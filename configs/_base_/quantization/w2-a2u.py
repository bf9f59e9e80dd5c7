# Ternary weights with a scale for each output channel, 2-bit activations, at the nearest level
_base_ = './w3-a8u.py'
quantization = dict(
    weight=dict(levels='ternary', granularity='channel'), activation=dict(levels='uint2')
)
