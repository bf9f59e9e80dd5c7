"""Metafiles and READMEs of the configs: complete, pointing at what exists, claiming nothing."""

from pathlib import Path

import pytest
import yaml
from mmengine.utils import get_installed_path
from small_configs import load

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs'
INDEX = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
FOLDERS = [Path(name).parent.name for name in INDEX]


def metafile(folder: str) -> dict:
    return yaml.safe_load((CONFIGS / folder / 'metafile.yml').read_text())


@pytest.mark.parametrize('folder', FOLDERS)
def test_metafile_names_every_config_once(folder):
    content = metafile(folder)
    (collection,) = content['Collections']
    assert (ROOT / collection['README']).is_file()
    for model in content['Models']:
        assert model['Config'] == f'configs/{folder}/{model["Name"]}.py'
        assert model['In Collection'] == collection['Name']
    names = [model['Name'] for model in content['Models']]
    assert names == sorted(path.stem for path in (CONFIGS / folder).glob('*.py'))


@pytest.mark.parametrize('folder', FOLDERS)
def test_readme_has_every_result_of_the_metafile(folder):
    lines = (CONFIGS / folder / 'README.md').read_text().splitlines()
    for model in metafile(folder)['Models']:
        for result in model.get('Results', []):
            row = [f'`{model["Name"]}`', *map(str, result['Metrics'].values())]
            assert any(all(text in line for text in row) for line in lines), row


@pytest.mark.parametrize('folder', FOLDERS)
def test_float_baseline_is_the_one_that_training_starts_from(folder):
    for model in metafile(folder)['Models']:
        if 'Float Model' not in model['Metadata']:
            continue
        baseline = model['Metadata']['Float Model']
        assert config_file(baseline['Config']).is_file()
        source = load(ROOT / model['Config']).load_from
        if 'Weights' in baseline:
            assert source == baseline['Weights']
            assert baseline['Metrics'].items() <= upstream_metrics(baseline).items()
        else:
            assert source is None or source.startswith('work_dirs/')


def config_file(name: str) -> Path:
    package, _, path = name.rpartition('::')
    return Path(get_installed_path(package), '.mim', 'configs', path) if package else ROOT / path


def upstream_metrics(baseline: dict) -> dict:
    """What the upstream metafile says of the checkpoint; it has none for VOC."""
    path = config_file(baseline['Config']).parent / 'metafile.yml'
    if not path.is_file():
        return baseline['Metrics']
    for model in yaml.safe_load(path.read_text())['Models']:
        # the mirrors differ between the stacks, the file names with their hashes do not
        if Path(model.get('Weights', '')).name == Path(baseline['Weights']).name:
            return model['Results'][0]['Metrics']
    raise AssertionError(f'{baseline["Weights"]} is not in {path}')


@pytest.mark.parametrize('folder', FOLDERS)
def test_readme_names_every_config_and_a_command(folder):
    text = (CONFIGS / folder / 'README.md').read_text()
    has_pattern = f'configs/{folder}/NAME.py' in text  # then the tables have the names alone
    for model in metafile(folder)['Models']:
        assert model['Config'] in text or (has_pattern and f'`{model["Name"]}`' in text)
