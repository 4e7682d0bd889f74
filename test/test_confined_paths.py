"""Names from outside lead to files inside a folder, and to nothing but files."""

import os
from pathlib import Path
import shutil
import threading

from hypothesis import given
from hypothesis import strategies as st
import pytest

from grasp_stn_ros.confined_paths import PathRefusedError, inside, read_regular
from grasp_stn_ros.detector import default_weights
from grasp_stn_ros.stn import checkpoint


@pytest.fixture
def tree(tmp_path):
    """A folder with a file, a sibling whose name begins alike, and a secret outside."""
    for name in ('models', 'models_secret'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'net.txt').write_text(name)
    return tmp_path


def test_what_lies_inside_is_resolved(tree):
    folder = tree / 'models'
    assert inside('net.txt', folder) == folder / 'net.txt'
    assert inside(folder / 'net.txt', folder) == folder / 'net.txt'
    assert inside('not/there/../yet.txt', folder) == folder / 'not' / 'yet.txt'
    (folder / 'latest.txt').symlink_to('net.txt')
    assert inside('latest.txt', folder) == folder / 'net.txt', 'a link inside is allowed'
    (tree / 'link').symlink_to(folder)
    assert inside('net.txt', tree / 'link') == folder / 'net.txt', 'the folder itself may be one'


@pytest.mark.parametrize('name', ['../models_secret/net.txt', '/etc/passwd', '..', '../..',
                                  'a/../../models_secret/net.txt', '../models/../models_secret'])
def test_what_leads_outside_is_refused(tree, name):
    with pytest.raises(PathRefusedError, match='outside'):
        inside(name, tree / 'models')


def test_links_that_lead_outside_are_refused(tree):
    folder = tree / 'models'
    (folder / 'file').symlink_to(tree / 'models_secret' / 'net.txt')
    (folder / 'folder').symlink_to(tree / 'models_secret')
    (folder / 'second').symlink_to(folder / 'folder')
    (folder / 'dangling').symlink_to('/nowhere/at/all')
    for name in ('file', 'folder/net.txt', 'second/net.txt', 'dangling'):
        with pytest.raises(PathRefusedError, match='outside'):
            inside(name, folder)


@pytest.mark.parametrize('name', ['', 'a\0b'])
def test_what_is_no_path_is_refused(tree, name):
    with pytest.raises(PathRefusedError, match='no path'):
        inside(name, tree)


def test_circles_and_missing_folders_are_refused(tree):
    (tree / 'a').symlink_to('b')
    (tree / 'b').symlink_to('a')
    try:
        # Newer Pythons leave the circle as it is; then it is at least inside.
        assert inside('a/net.txt', tree).is_relative_to(tree)
    except PathRefusedError as error:
        assert 'cannot be resolved' in str(error)
    with pytest.raises(PathRefusedError, match='no folder'):
        inside('x', tree / 'nowhere')


@given(st.lists(st.sampled_from(['..', '.', 'a', 'link', 'out', '', '~', '$HOME', 'net.txt']),
                max_size=8), st.booleans())
def test_no_combination_of_names_gets_out(tmp_path_factory, parts, absolute):
    base = tmp_path_factory.getbasetemp() / 'confined'
    root = base / 'root'
    if not root.exists():
        (root / 'a').mkdir(parents=True)
        (root / 'link').symlink_to('a')
        (root / 'a' / 'out').symlink_to(base)
    name = '/'.join(parts)
    try:
        found = inside(f'/{name}' if absolute else name, root)
    except PathRefusedError:
        return
    assert Path(os.path.realpath(found)).is_relative_to(os.path.realpath(root))


def test_only_regular_files_of_bounded_size_are_read(tmp_path):
    path = tmp_path / 'file'
    path.write_bytes(b'12345')
    assert read_regular(path, 5) == b'12345'
    with pytest.raises(PathRefusedError, match='more than 4 bytes'):
        read_regular(path, 4)
    with pytest.raises(PathRefusedError, match='no regular file'):
        read_regular('/dev/zero', 4)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / 'none', 4)
    with pytest.raises(OSError):
        read_regular(tmp_path, 4)


@pytest.mark.parametrize('end', ['.safetensors', '.json'])
def test_weights_that_are_a_pipe_do_not_hang(tmp_path, end):
    path = tmp_path / 'net.safetensors'
    for source in (default_weights(), default_weights().with_suffix('.json')):
        shutil.copy(source, path.with_suffix(source.suffix))
    path.with_suffix(end).unlink()
    os.mkfifo(path.with_suffix(end))
    errors = []

    def load():
        try:
            checkpoint.load(path)
        except checkpoint.CheckpointError as error:
            errors.append(str(error))

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), 'it waits for somebody to write into the pipe'
    assert 'no regular file' in errors[0]


def test_the_node_reads_weights_from_its_folder_only(tmp_path):
    pytest.importorskip('rclpy', reason='rclpy is missing: run `make setup`')
    from grasp_stn_ros.ros import parameters
    from grasp_stn_ros.ros.grasp_node import default_detector
    allowed = tmp_path / 'allowed'
    allowed.mkdir()
    for folder in (allowed, tmp_path):
        for source in (default_weights(), default_weights().with_suffix('.json')):
            shutil.copy(source, folder / f'net{source.suffix}')
    (allowed / 'link.safetensors').symlink_to('../net.safetensors')
    values = {p.name: p.default for p in parameters.PARAMETERS} | {
        'device': 'cpu', 'model_folder': str(allowed)}
    assert default_detector(values | {'model': 'net.safetensors'}).model_name == 'net'
    assert default_detector(values | {'model': 'default'}).model_name == default_weights().stem
    for name in ('../net.safetensors', str(tmp_path / 'net.safetensors'), 'link.safetensors'):
        with pytest.raises(PathRefusedError, match='outside'):
            default_detector(values | {'model': name})


def test_no_path_can_be_changed_while_the_node_runs():
    pytest.importorskip('rclpy', reason='rclpy is missing: run `make setup`')
    from grasp_stn_ros.ros import parameters
    live = {p.name for p in parameters.PARAMETERS
            if p.live and isinstance(p.default, str) and p.choices is None}
    assert not live, 'a live string that is no choice could name a file or a topic'
    assert not parameters.BY_NAME['model'].live and not parameters.BY_NAME['model_folder'].live
