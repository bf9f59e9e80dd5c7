# From random weights instead of a trained float model (table 7)
_base_ = '../resnet/resnet18_w2-a32_in1k.py'
load_from = None
default_hooks = dict(calibration=dict(from_scratch=True))
