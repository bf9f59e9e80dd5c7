"""Quantized detectors in ONNX Runtime: codes and boxes against those of the model."""

import onnx
import pytest
from exported import SIZE, pictures, small_detector
from mmengine.config import Config
from onnx_files import run
from toy_models import calibrated

from mmqnet.export.detection import export_module
from mmqnet.export.onnx import count_integer_layers, export_onnx
from mmqnet.export.verify import compare_codes
from mmqnet.export.verify_outputs import compare_outputs
from mmqnet.models import QuantizationConfig, build_model, convert


def write(model, config, path):
    """Calibrate a model and export it; return the module and the report."""
    preprocessor = model.data_preprocessor
    calibrated(model, (pictures(2) - preprocessor.mean) / preprocessor.std)
    module = export_module(model.eval(), config, shape=(SIZE, SIZE))
    names, metadata = module.output_names, module.metadata
    report = export_onnx(module, [module.example()], path, output_names=names, metadata=metadata)
    return module, report


@pytest.mark.parametrize('name', ['SSD', 'RetinaNet'])
def test_codes_and_boxes_agree(root, name, tmp_path):
    """All layers in integers, one picture and three."""
    model, config = small_detector(name)
    recipe = Config.fromfile(root / 'configs/_base_/quantization/w3-a8-int.py').quantization
    shared = {'neck.fpn_convs': dict(output=dict(levels='uint8'))} if name == 'RetinaNet' else {}
    convert(model, QuantizationConfig.from_dict(dict(recipe, overrides=shared)))
    path = tmp_path / 'file.onnx'
    module, report = write(model, config, path)
    layers = count_integer_layers(path, openvino=False)
    assert sum(layer.onnxruntime for layer in layers) >= 0.8 * len(layers)
    assert all(layer.weights != 'float' for layer in report.layers)
    inputs = [[pictures(1, seed=4)], [pictures(3, seed=5)]]
    for found in compare_codes(path, module, inputs):
        assert found.different == found.off_by_one, found
        assert found.equal_but_ties > 0.99, found
    boxes = compare_outputs(path, module, inputs)
    assert boxes.count > 10
    assert boxes.share > 0.8


def test_first_layer_in_openvino(root, tmp_path):
    """Also where the file takes any number of images, each channel has its own bias.

    The demo's detector, since a smaller one does not show what can go wrong there.
    """
    openvino = pytest.importorskip('openvino')
    config = Config.fromfile(root / 'configs/demo/ssd_r18_w3-a8-int_digits.py')
    model = build_model(config)
    model.backbone.bn1.bias.data.uniform_(-1, 1)
    path = tmp_path / 'file.onnx'
    write(model, config, path)
    file = onnx.load(path)
    codes = 'backbone.layer1.0.input_quantizer.codes.index'
    kind = onnx.TensorProto.UINT8
    file.graph.output.append(onnx.helper.make_tensor_value_info(codes, kind, None))
    onnx.save(file, path)
    images = pictures(2)
    found = openvino.compile_model(path, 'CPU')([images.numpy()])[codes]
    expected = run(path, images)[-1].numpy()
    assert (found != expected).mean() < 0.01
