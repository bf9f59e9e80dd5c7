# DoReFa's binary weights (one scale for a layer), PACT's 2-bit activations
_base_ = './dorefa-pact_w2-a2.py'
quantization = dict(weight=dict(levels='binary'))
