# Batch statistics of hard functions: what soft ones leave is worth a point at 2 bits
batch_norm_hooks = dict(
    batch_norm=dict(type='mmqnet.BatchNormReestimationHook', num_samples=1000),
)
