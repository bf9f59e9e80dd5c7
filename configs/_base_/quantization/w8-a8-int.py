# As w3-a8-int, with 8-bit weights (-127..127) inside: without VNNI, runtimes saturate their sums
_base_ = './w3-a8-int.py'
quantization = dict(weight=dict(levels='int8'))
