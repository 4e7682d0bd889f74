"""Objects from mesh files: convex parts, the cache, and what cannot be used."""

from click.testing import CliRunner
import numpy as np
import pytest
from scipy.spatial import ConvexHull

from grasp_stn_ros.cli import main
from grasp_stn_ros.data.simulated import SimulatedDataset
from grasp_stn_ros.simulation import meshes
from grasp_stn_ros.simulation.mesh_data import MeshObjects, check_meshes, outcomes
from grasp_stn_ros.simulation.meshes import MeshError, convex_parts, list_meshes, mesh_object

trimesh = pytest.importorskip('trimesh', reason='meshes need: pip install trimesh coacd')
pytest.importorskip('coacd', reason='meshes need: pip install trimesh coacd')


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp('cache')


@pytest.fixture
def folder(tmp_path, cache, monkeypatch):
    """A U-shaped bracket, and files that cannot be used."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(cache))
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
    archive = kept[0].read_bytes()
    monkeypatch.setattr(meshes, '_decompose', lambda path: first[1:])
    for broken in (b'no archive', archive[:len(archive) // 2], archive[:-1]):
        kept[0].write_bytes(broken)
        assert len(convex_parts(folder / 'bracket.stl')) == len(first) - 1
    kept[0].write_bytes(archive)  # the other tests use it


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
    good, bad = check_meshes(list_meshes(folder))
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


def test_labelling_meshes_from_the_command_line(folder, tmp_path):
    (folder / 'broken.obj').write_text('this is no mesh')
    trimesh.creation.box((0.3, 0.3, 0.3)).export(folder / 'crate.ply')
    arguments = ['simulate', '--meshes', str(folder), '--scenes', '4', '--candidates', '6',
                 '--out', str(tmp_path / 'data')]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert 'not used: broken.obj' in result.output
    assert '2 of 3 meshes can be used' in result.output and '4 new images' in result.output
    data = SimulatedDataset(tmp_path / 'data')
    named = {thing for i in range(4) for thing in data[i].objects}
    assert named <= {'bracket', 'crate'} and 'bracket' in named
    rows = {row.name: row for row in outcomes(
        tmp_path / 'data', MeshObjects([folder / 'bracket.stl', folder / 'crate.ply']))}
    # What no gripper of 85 mm can lift is said to be so; the bracket is lifted.
    assert rows['bracket'].lifted and not rows['bracket'].remark
    assert not rows['crate'].lifted and rows['crate'].remark
    assert 'bracket' in result.output and 'crate' in result.output
    # Resumed with the same meshes, refused with others.
    assert '0 new images' in CliRunner().invoke(main, arguments).output
    trimesh.creation.box((0.04, 0.03, 0.05)).export(folder / 'block.stl')
    changed = CliRunner().invoke(main, arguments)
    assert changed.exit_code == 1 and 'other settings' in changed.output


def test_meshes_that_do_not_stay_on_the_table_are_named(folder):
    trimesh.creation.icosphere(4, 0.04).export(folder / 'ball.stl')
    (folder / 'more').mkdir()
    (folder / 'more' / 'bracket.stl').write_bytes((folder / 'bracket.stl').read_bytes())
    good, bad = check_meshes(list_meshes(folder))
    reasons = {path.name: reason for path, reason in bad}
    assert 'same name' in reasons['bracket.stl']
    # A ball comes to rest or it does not; what must not happen is that it is tried for ever.
    assert len(good) + len(bad) == 3 and 'bracket' in {p.stem for p in good}
