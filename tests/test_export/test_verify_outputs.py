"""Boxes of a file against those of the model."""

import torch

from mmqnet.export.verify_outputs import OutputAgreement, _boxes, compare_outputs

BOXES = torch.tensor(
    [[0, 0, 10, 10, 0.9], [0, 0, 10, 10, 0.8], [20, 20, 40, 40, 0.7], [1, 1, 5, 5, 0.2]]
)
LABELS = torch.tensor([0, 1, 1, 0])


def matched(boxes, labels):
    return _boxes(BOXES, LABELS, boxes, labels)


def test_boxes_need_class_place_and_a_twin_of_their_own():
    assert matched(BOXES, LABELS) == (3, 3)
    assert matched(BOXES.flip(0), LABELS.flip(0)) == (3, 3)
    assert matched(BOXES, torch.tensor([1, 1, 1, 0])) == (3, 2)
    moved = BOXES.clone()
    moved[2, 0] += 2
    assert matched(moved, LABELS) == (3, 2)
    padding = torch.zeros_like(BOXES)
    assert matched(padding, torch.full((4,), -1)) == (3, 0)
    assert OutputAgreement('boxes').share == 1.0


def test_detector(export):
    done = export('SSD')
    x = torch.randint(0, 256, (2, 3, 64, 64)).float()
    found = compare_outputs(done.path, done.module, [[x]])
    assert found.what == 'boxes'
    assert found.share >= 0.9
