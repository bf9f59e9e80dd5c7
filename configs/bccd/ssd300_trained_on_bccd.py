# Three epochs more in float, as many as the quantized models have: what they are compared with
_base_ = './_base_/ssd300_bccd_3e.py'
