"""Objects from mesh files: convex parts, the cache, and what cannot be used."""

from click.testing import CliRunner
import numpy as np
import pytest
from scipy.spatial import ConvexHull

from grasp_stn_ros.cli import main
from grasp_stn_ros.simulation import meshes
from grasp_stn_ros.simulation.meshes import MeshError, convex_parts, list_meshes, mesh_object

trimesh = pytest.importorskip('trimesh', reason='meshes need: pip install trimesh coacd')
pytest.importorskip('coacd', reason='meshes need: pip install trimesh coacd')


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A U-shaped bracket, and files that cannot be used."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    root = tmp_path / 'meshes'
    root.mkdir()
    walls = [((0.06, 0.03, 0.01), (0, 0, 0.005)), ((0.01, 0.03, 0.04), (-0.025, 0, 0.03)),
             ((0.01, 0.03, 0.04), (0.025, 0, 0.03))]
    bracket = trimesh.util.concatenate([
        trimesh.creation.box(size, trimesh.transformations.translation_matrix(at))
        for size, at in walls])
    bracket.export(root / 'bracket.stl')
    return root


def test_a_bracket_stays_open(folder):
    parts = convex_parts(folder / 'bracket.stl')
    assert len(parts) >= 3
    volume = sum(ConvexHull(part).volume for part in parts)
    solid = 0.06 * 0.03 * 0.01 + 2 * 0.01 * 0.03 * 0.04
    assert volume == pytest.approx(solid, rel=0.15)           # its hull has 9e-5 m3, twice that
    thing = mesh_object(folder / 'bracket.stl', np.random.default_rng(0))
    assert thing.family == 'bracket' and 0.02 <= thing.mass <= 0.5
    assert np.ptp(thing.vertices, axis=0) == pytest.approx([0.06, 0.03, 0.05], abs=0.003)


def test_parts_are_kept_and_a_broken_cache_is_made_again(folder, monkeypatch):
    first = convex_parts(folder / 'bracket.stl')
    kept = list(meshes.default_cache().glob('bracket-*.npz'))
    assert len(kept) == 1

    def refuse(path):
        raise AssertionError('decomposed again')

    with monkeypatch.context() as patch:
        patch.setattr(meshes, '_decompose', refuse)
        again = convex_parts(folder / 'bracket.stl')
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    kept[0].write_bytes(b'no archive')
    assert len(convex_parts(folder / 'bracket.stl')) == len(first)


def test_what_cannot_be_used_is_named(folder):
    big = folder / 'millimetres.stl'
    trimesh.creation.box((60, 30, 10)).export(big)
    with pytest.raises(MeshError, match='scaled by 0.001'):
        convex_parts(big)
    (folder / 'broken.obj').write_text('this is no mesh')
    with pytest.raises(MeshError, match='broken.obj'):
        convex_parts(folder / 'broken.obj')
    with pytest.raises(MeshError, match='cannot be read'):
        convex_parts(folder / 'missing.stl')
    good, bad = meshes.usable(list_meshes(folder))
    assert [p.name for p in good] == ['bracket.stl']
    assert {p.name for p, _ in bad} == {'millimetres.stl', 'broken.obj'}
    with pytest.raises(MeshError, match='has no meshes'):
        list_meshes(folder / 'bracket.stl')


def test_lifting_meshes_from_the_command_line(folder):
    (folder / 'broken.obj').write_text('this is no mesh')
    result = CliRunner().invoke(main, ['evaluate', 'lift', '--scenes', '2', '--meshes',
                                       str(folder), '--threads', '1'])
    assert result.exit_code == 0, result.output
    assert 'not used: broken.obj' in result.output and 'long-axis baseline' in result.output
