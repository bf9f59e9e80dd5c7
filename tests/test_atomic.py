"""Files are complete or what they were before; the kill tests are in `test_train_test.py`."""

import pytest

from mmqnet import atomic


def test_creates_folders_and_leaves_one_file(tmp_path):
    path = tmp_path / 'new' / 'folder' / 'a.txt'
    atomic.write_text(path, 'grün')
    assert path.read_text(encoding='utf-8') == 'grün'
    atomic.write_bytes(str(path), b'\x00\xff')
    assert path.read_bytes() == b'\x00\xff'
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt])
def test_failed_write_leaves_the_old_file(tmp_path, error):
    path = tmp_path / 'a.txt'
    path.write_text('old')

    def write():
        with atomic.replacing(path) as part:
            part.write_text('half')
            raise error

    with pytest.raises(error):
        write()
    with pytest.raises(TypeError):
        atomic.write_bytes(path, None)
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_overwritten(tmp_path):
    (tmp_path / '.a.txt.part').write_text('a longer text that was never finished')
    atomic.write_text(tmp_path / 'a.txt', 'new')
    assert [path.read_text() for path in tmp_path.iterdir()] == ['new']


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / 'plain').write_text('')
    atomic.write_text(tmp_path / 'atomic', '')
    assert (tmp_path / 'atomic').stat().st_mode == (tmp_path / 'plain').stat().st_mode
