# DoReFa's 2-bit weights (-3, -1, 1, 3), PACT's 2-bit activations
_base_ = './dorefa-pact_w4-a4.py'
quantization = dict(
    weight=dict(levels=[-3, -1, 1, 3]), activation=dict(levels='uint2'), quantize_identity=False
)
