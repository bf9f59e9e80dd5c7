# LSQ: 3-bit weights (-4..3), 8-bit activations, learned steps of the least squared error at first.
# The function is hard in training: no temperature, and nothing between soft and hard to report
_base_ = './lsq_w3-a32.py'
quantization = dict(activation=dict(type='LSQ', levels='uint8', step_init='mse'))
