"""The model card: what a weight file is, from its sidecar, so that the two cannot differ."""

from __future__ import annotations

from typing import Any

from ..architectures import ARCHITECTURES
from ..preprocessing import view_sizes

# What a result says about a model, and how the card puts it.
_FIGURES = {
    'plain': 'rectangle metric (IoU > 25 %, 30 degrees)',
    'before_end_to_end': 'the same before the end-to-end step',
    'strict': 'strict rectangle metric (IoU > 50 %, 15 degrees)',
    'any_plain': 'some candidate correct by the rectangle metric',
    'plain_rgbd': 'rectangle metric, images with depth',
    'strict_rgbd': 'strict rectangle metric, images with depth',
    'lift': "lift success of the detector's first grasp",
    'any_candidate': 'lift success of any of its candidates',
    'of_liftable': 'lift success where any candidate or the baseline lifts',
    'baseline': 'lift success of the long-axis baseline on the same scenes',
    'removed_per_attempt': 'clutter: objects removed per attempt',
    'cleared': 'clutter: tables cleared',
}
# Not shares, but errors of the score.
_ERRORS = {'ece': 'expected calibration error of the score'}
_PROVENANCE = ('modality', 'holes', 'jaw_told', 'turns', 'n', 'n_rgbd', 'seed', 'split', 'domain',
               'candidates', 'command', 'commit', 'date', 'machine')


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """Figures and provenance of a result file, without its rows; raises ValueError."""
    figures = {k: result[k] for k in (*_FIGURES, *_ERRORS) if result.get(k) is not None}
    if not figures or 'command' not in result:
        raise ValueError('not a result of `grasp_stn evaluate`: it has no figure or no command')
    return {**figures, **{k: result[k] for k in _PROVENANCE if k in result}}


def model_card(name: str, sidecar: dict[str, Any], picture: str = '') -> str:
    """Markdown of the card for the weights ``name``."""
    config, training = sidecar['config'], sidecar.get('training', {})
    lines = [f'# Model card: {name}', '']
    if picture:
        lines += [f'![Stages of a detection]({picture})', '']
    network = ARCHITECTURES[sidecar['architecture']]
    lines += [
        f'{network.SUMMARY}, for grasp detection with a parallel-jaw gripper',
        f'({sidecar["architecture"]}, K = {config["candidates"]} candidates by default). '
        'Input: 7 x 400 x 400 (RGB, height above',
        'the support plane, surface normals); output: every candidate with location, angle, '
        'rectangle and score.', *_views(config), '',
        f'- Weights: `{name}.safetensors`, SHA-256 `{sidecar["sha256"]}`',
        f'- Licence: {sidecar["licence"]}', f'- Trained on: {sidecar["data"]}']
    if 'images' in training:
        lines.append(f'- Training: {training["images"]} images seen, batch {training["batch"]}, '
                     f'seed {training["seed"]}; phases: '
                     + '; '.join(p['name'] for p in training.get('phases', [])))
    if 'mean_of' in training:
        lines.append(f'- Mean of the weights of {len(training["mean_of"])} networks, the last of '
                     'which was trained as said, from what the ones before had learned')
    if 'without_depth' in training:
        other = training['without_depth']
        lines.append('- Images without depth: a network of their own in the same file, trained on '
                     f'{other.get("images", "?")} images more, seed {other.get("seed", "?")}')
    if 'finger_depths' in training:
        tried = training['finger_depths']
        depths = ', '.join(f'{1000 * depth:.0f}' for depth in config['finger_depths'])
        lines.append(f'- Finger depths: learned last, from {tried["candidates"]} candidates in '
                     f'{tried["scenes"]} scenes, each executed with the tips {depths} mm below '
                     'the surface')
    lines += ['', '## Figures', '',
              '| Figure | Value | n | Data | Seed |', '|---|---|---|---|---|']
    for metrics in sidecar['metrics'].values():
        for key, text in _FIGURES.items():
            if key in metrics:
                n = metrics['n_rgbd'] if key.endswith('rgbd') else metrics['n']
                lines.append(f'| {text}{_condition(metrics)} | {metrics[key]:.1%} | {n} | '
                             f'{metrics["split"]} | {_seed(metrics)} |')
        for key, text in _ERRORS.items():
            if key in metrics:
                lines.append(f'| {text} | {metrics[key]:.3f} | {metrics["n"]} | '
                             f'{metrics["split"]} | {_seed(metrics)} |')
    lines += ['', 'Each from a result file that the named command wrote:', '']
    for metrics in sidecar['metrics'].values():
        lines.append(f'- `{metrics["command"]}` at commit {metrics["commit"]} on '
                     f'{metrics["machine"]["cpu"]}')
    lines += [
        '', '## Use and limits', '',
        'For objects up to the opening of the gripper on a support that is roughly a plane, seen '
        'from 0.5 to 1.2 m',
        'by a camera that looks down at up to 35 degrees from straight.',
        _score_note(config),
        'Other images than those it was trained on can be harder than the table says. Transparent '
        'and reflective objects',
        'and objects that need a sideways approach were not trained. It must not be the only '
        'safeguard of a robot near people.', '']
    return '\n'.join(lines)


def _views(config: dict[str, Any]) -> list[str]:
    """Say which images are shown with another number of pixels."""
    return [f'{where} {sizes[0]} to {sizes[-1]} pixels a side, by distance of the camera, so '
            f'that {jaws} about {config[key]:g}.' for key, where, sizes, jaws in (
                ('seen_jaw', 'With depth', view_sizes(True), 'jaws of 20 mm have'),
                ('told_jaw', 'Without depth, where the size of the jaws is told,',
                 view_sizes(False), 'they have'))
            if config.get(key)]


def _seed(metrics: dict[str, Any]) -> str:
    return '-' if metrics.get('seed') is None else str(metrics['seed'])


def _condition(metrics: dict[str, Any]) -> str:
    """What the images lacked in a measurement, or was added to it."""
    modality = {'rgb': 'RGB only', 'depth': 'depth only'}.get(metrics.get('modality', ''))
    notes = [modality] if modality else []
    if metrics.get('domain', 'basic') != 'basic':
        notes.append(f'domain {metrics["domain"]}')
    if metrics.get('jaw_told'):
        notes.append('the size of the jaws in pixels told')
    if metrics.get('holes'):
        notes.append(f'{metrics["holes"]:.0%} more holes in the depth')
    if metrics.get('turns', 1) > 1:
        notes.append(f'ensemble of {metrics["turns"]} turned views')
    return f' ({", ".join(notes)})' if notes else ''


def _score_note(config: dict[str, Any]) -> str:
    note = _calibration_note(config)
    if config.get('middle_weight'):
        note += (' For each metre between a grasp and the middle of its object, its logit before '
                 f'the calibration is lowered by {config["middle_weight"]:g}.')
    return note


def _calibration_note(config: dict[str, Any]) -> str:
    if tuple(config.get('calibration', (1.0, 0.0))) == (1.0, 0.0):
        return 'The score orders candidates; it is not calibrated as a probability.'
    return ('The score is calibrated: about the probability that the grasp lifts under the '
            "simulator's strict physics; see the reliability diagram.")
