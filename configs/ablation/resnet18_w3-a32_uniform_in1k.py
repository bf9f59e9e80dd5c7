# Linear thresholds, halfway between neighbouring levels, instead of k-means (table 5)
_base_ = '../resnet/resnet18_w3-a32_in1k.py'
model = dict(quantization=dict(weight=dict(thresholds='uniform')))
