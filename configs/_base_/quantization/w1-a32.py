# Binary weights (-1, 1), activations in float. The slope of the weights' function is taken at T = 1
# and multiplied by T, as in the paper's code: worth 0.8 points on the demo, see docs/low_bit.md
_base_ = './w3-a32.py'
quantization = dict(weight=dict(levels='binary', backward_temperature=1))
