# LSQ: 3-bit weights (-4..3) with a learned step, activations in float
_base_ = './w3-a32u.py'
quantization = dict(
    weight=dict(_delete_=True, type='LSQ', levels=list(range(-4, 4)), step_init='mse')
)
quantization_hooks = dict(temperature=None, gap=None)
