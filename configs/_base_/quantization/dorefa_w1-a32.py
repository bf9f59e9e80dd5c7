# DoReFa's binary weights (one scale for a layer), activations in float
_base_ = './dorefa_w3-a32.py'
quantization = dict(weight=dict(levels='binary'))
