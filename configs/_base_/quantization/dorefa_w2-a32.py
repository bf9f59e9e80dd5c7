# DoReFa's 2-bit weights (-3, -1, 1, 3), activations in float
_base_ = './dorefa_w3-a32.py'
quantization = dict(weight=dict(levels=[-3, -1, 1, 3]))
