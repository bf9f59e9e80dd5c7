# Soft and hard functions side by side after every epoch, on a tenth of the images (figure 4)
_base_ = '../resnet/resnet18_w2-a32_in1k.py'
default_hooks = dict(gap=dict(interval=1, num_samples=5000))
