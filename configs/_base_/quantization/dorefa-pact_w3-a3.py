# DoReFa's 3-bit weights (-7, -5, .., 7), PACT's 3-bit activations
_base_ = './dorefa-pact_w3-a8.py'
quantization = dict(activation=dict(levels='uint3'), quantize_identity=False)
