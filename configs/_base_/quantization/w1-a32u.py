# Binary weights with a scale for each output channel, at the nearest level, activations in float
_base_ = './w3-a32u.py'
quantization = dict(weight=dict(levels='binary', granularity='channel'))
