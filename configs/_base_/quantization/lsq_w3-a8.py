# LSQ: 3-bit weights (-4..3), 8-bit activations, learned steps of the least squared error at first.
# The function is hard in training: no temperature, and nothing between soft and hard to report
_base_ = './w3-a8u.py'
quantization = dict(
    weight=dict(_delete_=True, type='LSQ', levels=list(range(-4, 4)), step_init='mse'),
    activation=dict(_delete_=True, type='LSQ', levels='uint8', step_init='mse'),
)
quantization_hooks = dict(temperature=None, gap=None)
