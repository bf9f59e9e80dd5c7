"""What the exporter refuses, and how it writes."""

import copy
import re
import sys
from pathlib import Path

import onnx
import pytest
import torch
from onnx_files import exported, run
from torch import nn

from mmqnet.calibration import calibrate
from mmqnet.export.onnx import export_onnx, save
from mmqnet.export.packages import require
from mmqnet.layers import QuantConv2d

INTEGERS = dict(
    weight_quantizer=dict(levels='int8', thresholds='uniform', granularity='channel'),
    input_quantizer=dict(levels='uint8', thresholds='uniform'),
)


@pytest.fixture
def module():
    made = nn.Sequential(
        QuantConv2d(3, 8, 3, **INTEGERS), nn.ReLU(), QuantConv2d(8, 4, 3, **INTEGERS)
    )
    calibrate(made, [torch.rand(2, 3, 9, 9)], made)
    return made.eval()


X = torch.rand(2, 3, 9, 9)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(thresholds='near'), "`thresholds` should be 'exact' or 'grid', but got 'near'"),
        (dict(float_layers='big'), "`float_layers` should be 'small' or 'fast', but got 'big'"),
        (dict(opset=20), '`opset` should be at least 21, the first with int4, but got 20'),
    ],
)
def test_wrong_arguments(module, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        export_onnx(module, [X], tmp_path / 'a.onnx', output_names=['y'], **options)


def test_training_and_calibration(module, tmp_path):
    with pytest.raises(ValueError, match='should be in evaluation mode'):
        export_onnx(module.train(), [X], tmp_path / 'a.onnx', output_names=['y'])
    pending = nn.Sequential(QuantConv2d(3, 8, 3, **INTEGERS)).eval()
    with pytest.raises(RuntimeError, match='has not been calibrated'):
        export_onnx(pending, [X], tmp_path / 'a.onnx', output_names=['y'])
    assert not list(tmp_path.iterdir())


def test_operation_that_onnx_lacks(tmp_path):
    class Unsupported(nn.Module):
        def forward(self, x):
            return torch.linalg.eigvalsh(x)

    path = tmp_path / 'a.onnx'
    with pytest.raises(
        ValueError, match=r'Unsupported cannot be exported to ONNX: .*eigh'
    ) as caught:
        export_onnx(Unsupported().eval(), [torch.rand(2, 3, 3)], path, output_names=['y'])
    assert '\n' not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    with pytest.raises(
        ImportError, match=r'`onnxscript` cannot be .*: pip install mmqnet\[export\]'
    ):
        require('onnx', 'onnxscript')


def test_file_is_complete_or_as_it_was(module, tmp_path, monkeypatch):
    path = tmp_path / 'a.onnx'
    path.write_text('before')

    def full(*args, **kwargs):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(save.ir, 'save', full)
    with pytest.raises(OSError, match='No space left'):
        export_onnx(module, [X], path, output_names=['y'])
    assert path.read_text() == 'before'
    assert [file.name for file in tmp_path.iterdir()] == ['a.onnx']


def test_external_data_where_one_file_would_be_too_large(module, tmp_path, monkeypatch):
    monkeypatch.setattr(save, 'LARGEST_FILE', 100)
    monkeypatch.setattr(save, 'SMALLEST_EXTERNAL', 16)
    with exported(tmp_path, module, X) as report, torch.no_grad():
        file, data = sorted(file.name for file in tmp_path.iterdir())
        assert re.fullmatch(re.escape(file) + r'\.[0-9a-f]{8}\.data', data)
        assert report.external_data == str(tmp_path / data)
        assert report.num_bytes == sum(file.stat().st_size for file in tmp_path.iterdir())
        (got,) = run(report.path, X)
        torch.testing.assert_close(got, module(X), rtol=0.05, atol=0.05)
        assert any('external data' in warning for warning in report.warnings)


def test_file_and_external_data_stay_a_pair(module, tmp_path, monkeypatch):
    monkeypatch.setattr(save, 'LARGEST_FILE', 100)
    monkeypatch.setattr(save, 'SMALLEST_EXTERNAL', 16)
    path, other = tmp_path / 'a.onnx', copy.deepcopy(module)
    with torch.no_grad():
        other[0].weight.mul_(2)
        calibrate(other, [X], other)
    export_onnx(module, [X], path, output_names=['out'])
    expected, replace = run(path, X), Path.replace

    def interrupted(self, target):
        if Path(target) == path:
            raise OSError('interrupted')
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, 'replace', interrupted)
        with pytest.raises(OSError, match='interrupted'):
            export_onnx(other.eval(), [X], path, output_names=['out'])
    assert torch.equal(run(path, X)[0], expected[0])
    (tmp_path / 'a.onnx.mine.data').touch()
    export_onnx(other, [X], path, output_names=['out'])
    assert not torch.equal(run(path, X)[0], expected[0])
    assert len(list(tmp_path.glob('a.onnx.*.data'))) == 2


def test_report_describes_what_is_written(tmp_path):
    """A clip before a quantizer leaves half of its thresholds, few enough for comparisons."""
    levels = sorted({*(i * abs(i) ** 0.3 for i in range(-31, 32))})
    uneven = dict(levels=[*levels], thresholds='uniform', signed_levels=None)
    made = nn.Sequential(
        QuantConv2d(3, 8, 3, **INTEGERS),
        nn.ReLU(),
        QuantConv2d(8, 4, 3, weight_quantizer=INTEGERS['weight_quantizer'], input_quantizer=uneven),
    )
    calibrate(made, [X], made)
    report = export_onnx(made.eval(), [X], tmp_path / 'a.onnx', output_names=['out'])
    assert [layer.codes for layer in report.layers] == ['rounding', 'chain']
    assert not any('thresholds that no rounding gives' in warning for warning in report.warnings)
    assert not any(node.op_type.startswith('Tree') for node in onnx.load(report.path).graph.node)


def test_fixed_batch_and_metadata(module, tmp_path):
    options = dict(dynamic_batch=False, metadata=dict(task='detection'))
    with exported(tmp_path, module, X[:1], **options) as report:
        model = onnx.load(report.path)
        assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [
            1,
            3,
            9,
            9,
        ]
        assert [(item.key, item.value) for item in model.metadata_props] == [('task', 'detection')]
        assert model.producer_name == 'mmqnet'
        # nothing of this machine: neither paths nor notes of torch
        assert b'site-packages' not in model.SerializeToString()


def test_exporting_leaves_the_module_as_it_is(module, tmp_path):
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with exported(tmp_path, module, X):
        after = module.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
