# LSQ: 3-bit weights (-4..3), 8-bit activations, learned steps. Its function is hard in training:
# there is no temperature, and nothing between soft and hard to report
_base_ = './w3-a8u.py'
quantization = dict(
    weight=dict(_delete_=True, type='LSQ', levels=list(range(-4, 4))),
    activation=dict(_delete_=True, type='LSQ', levels='uint8'),
)
quantization_hooks = dict(temperature=None, gap=None)
