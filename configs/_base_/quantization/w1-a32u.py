# Binary weights with a scale for each output channel, at the nearest level, activations in float
_base_ = './w2-a32u.py'
quantization = dict(weight=dict(levels='binary'))
