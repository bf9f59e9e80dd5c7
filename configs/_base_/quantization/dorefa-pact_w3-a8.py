# DoReFa's 3-bit weights (-7, -5, .., 7), PACT's 8-bit activations
_base_ = './dorefa-pact_w4-a4.py'
quantization = dict(weight=dict(levels=list(range(-7, 8, 2))), activation=dict(levels='uint8'))
