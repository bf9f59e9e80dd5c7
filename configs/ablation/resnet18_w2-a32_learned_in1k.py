# Thresholds that are trained like the scales
_base_ = '../resnet/resnet18_w2-a32_in1k.py'
model = dict(quantization=dict(weight=dict(learn_thresholds=True)))
