"""Hostile input: messages at the conversion layer and over DDS, and files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
import tempfile
import time
from typing import Any

import numpy as np

from ..evaluation.survival import PATIENCE, survive
from ..reasons import GraspError, Reason
from ..rgbd import MAX_DEPTH, MIN_DEPTH
from . import conversions, stress_messages
from .stress_rig import running
from .stress_scenes import now
from .stress_settings import Row, Settings, new_namespace

# Over DDS, a good image in between shows that the node still works.
_EVERY = 50


def convert(messages: dict[str, Any], matrix: str = 'K') -> str:
    """
    Convert one triple with ``matrix`` K or P -> ``OK`` or the name of the reason.

    Raises whatever is no :class:`GraspError`, and AssertionError for a frame or an error that is
    not as promised.
    """
    try:
        frame = conversions.frame_from_messages(messages['color'], messages['depth'],
                                                messages['info'], matrix)
    except GraspError as error:
        return _name(error)
    assert frame.rgb.dtype == np.uint8 and frame.rgb.shape[2] == 3
    depth = frame.depth
    assert depth is not None and depth.dtype == np.float32 and depth.shape == frame.rgb.shape[:2]
    valid = depth[~np.isnan(depth)]
    # In float32, as the limits themselves are compared.
    assert ((valid >= np.float32(MIN_DEPTH)) & (valid <= np.float32(MAX_DEPTH))).all()
    conversions.is_distorted(messages['info'])
    return 'OK'


def _name(error: GraspError) -> str:
    assert str(error).startswith(f'{error.reason.name}: ') and len(str(error)) > 40
    return error.reason.name


def convert_number(seed: int, number: int) -> list[str]:
    """Convert everything that is made for ``number`` -> outcomes."""
    messages = stress_messages.mutated(seed, number)
    outcomes = [convert(messages, 'KP'[number % 2])]
    for decode, message in zip((conversions.rgb_from_message, conversions.depth_from_message,
                                conversions.mask_from_message),
                               (*stress_messages.compressed(seed, number), messages['color']),
                               strict=True):
        try:
            decode(message)
            outcomes.append('OK')
        except GraspError as error:
            outcomes.append(_name(error))
    return outcomes


def fuzz(settings: Settings) -> Row:
    """Messages at the conversion layer, in a process that may die, and to a node over DDS."""
    row = Row('fuzz', 'no crash, no hang, a named error for each message that is refused')
    began = time.monotonic()
    outcomes, crashes, hangs = survive(convert_number, settings.seed, settings.messages)
    seconds = time.monotonic() - began
    over_dds, dds_crashes, dds_hangs = _over_dds(settings)
    crashes, hangs = crashes + dds_crashes, hangs + dds_hangs
    row.figures = {
        'messages': settings.messages + settings.dds_messages, 'crashes': len(crashes),
        'hangs': len(hangs), 'at_conversion': settings.messages,
        'seconds_at_conversion': round(seconds, 2), 'outcomes': dict(sorted(outcomes.items())),
        'over_dds': settings.dds_messages, 'outcomes_over_dds': dict(sorted(over_dds.items()))}
    row.check(not crashes, f'crashes: {"; ".join(crashes[:3])}')
    row.check(not hangs, f'hangs: {"; ".join(hangs[:3])}')
    return row


def _over_dds(settings: Settings) -> tuple[Counter[str], list[str], list[str]]:
    """Publish mutated triples to a node: for each one ~/stages has to name the outcome."""
    outcomes: Counter[str] = Counter()
    crashes: list[str] = []
    hangs: list[str] = []
    values = settings.parameters(frame_mismatch='warn')
    with running(new_namespace(), settings.seed, **values) as (station, process):
        station.right_grasp()
        for number in range(settings.dds_messages):
            if number % _EVERY == 0:
                station.right_grasp()
                station.camera.stop()
            stamp = now()
            for name, message in stress_messages.mutated(settings.seed, number, stamp).items():
                station.camera.publishers[name].publish(message)
            stages = _stages(station, process, (stamp.sec, stamp.nanosec))
            if not process.alive:
                crashes.append(f'over DDS, number {number}: exit code '
                               f'{process.process.returncode}')
                break
            if stages is None:
                hangs.append(f'over DDS, number {number}')
                continue
            outcomes[Reason(stages.reason).name] += 1
            if stages.reason == Reason.INTERNAL_ERROR:
                crashes.append(f'over DDS, number {number}: {stages.message}')
        station.right_grasp()
    return outcomes, crashes, hangs


def _stages(station, process, stamp: tuple[int, int]):
    """Return what the node says about the pair of ``stamp``, None if nothing."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.alive:
        if stamp in station.stages:
            return station.stages.pop(stamp)
        time.sleep(0.002)
    return None


def files(settings: Settings) -> Row:
    """Corrupt, truncated and hostile weights, sidecars and label files."""
    from ..evaluation import file_fuzz
    row = Row('files', 'refused by name, nothing executed, nothing overwritten')
    with tempfile.TemporaryDirectory(prefix='stress_') as folder:
        outcomes, crashes, hangs = survive(file_fuzz.try_number, settings.seed, settings.files,
                                           str(Path(folder)))
    row.figures = {'files': settings.files, 'crashes': len(crashes), 'hangs': len(hangs),
                   'outcomes': dict(sorted(outcomes.items()))}
    row.check(not crashes, f'crashes: {"; ".join(crashes[:3])}')
    row.check(not hangs, f'hangs: {"; ".join(hangs[:3])}')
    return row
