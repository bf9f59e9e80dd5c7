# DoReFa's 3-bit weights (-7, -5, .., 7), activations in float. The weights keep their size, which
# matters where no batch normalization follows
_base_ = './w3-a32u.py'
quantization = dict(
    weight=dict(_delete_=True, type='DoReFa', levels=list(range(-7, 8, 2)), rescale=True)
)
quantization_hooks = dict(temperature=None, gap=None)
