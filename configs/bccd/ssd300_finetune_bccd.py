# The float model for as many more epochs as the quantized ones: what they are compared with
_base_ = './_base_/ssd300_bccd_finetune.py'
