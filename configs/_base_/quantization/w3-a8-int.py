# Integers from the first layer to the predictions: 3-bit weights (-4..3) and 8-bit activations
# inside, 8 bits at the first and the last layers and in sums (identities without down-sampling:
# those of the activations); see docs/integer_recipes.md.
# int7 (±63), stored in 8 bits: sums of products with 8-bit activations stay exact on any CPU
_base_ = './w3-a8u.py'
quantization = dict(
    include=['*'],
    exclude=[],
    keep_float=[],
    first=dict(weight=dict(levels='int7'), activation=dict(levels='uint8')),
    last=dict(
        weight=dict(levels='int7'),
        activation=dict(levels='uint8'),
        output=dict(levels='uint8'),
    ),
    sums=dict(levels='uint8'),
)
