# Ternary weight networks: threshold and scale from the weights of a layer, activations in float
_base_ = './w3-a32u.py'
quantization = dict(weight=dict(_delete_=True, type='TWN', levels='ternary'))
quantization_hooks = dict(temperature=None, gap=None)
