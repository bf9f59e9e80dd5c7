# One function for the weights of all layers instead of one for each layer (table 6)
_base_ = '../resnet/resnet18_w2-a32_in1k.py'
model = dict(quantization=dict(weight=dict(granularity='model')))
