# DoReFa's 4-bit weights (-15, -13, .., 15), PACT's 4-bit activations. The weights keep their size,
# which matters where no batch normalization follows
_base_ = './w4-a4u.py'
quantization = dict(
    weight=dict(_delete_=True, type='DoReFa', levels=list(range(-15, 16, 2)), rescale=True),
    activation=dict(_delete_=True, type='PACT', levels='uint4'),
)
quantization_hooks = dict(temperature=None, gap=None)
