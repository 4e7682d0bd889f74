"""Checks of this machine that need no ROS: device, weights, packages, shared memory, buffers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import importlib.metadata
import os
from pathlib import Path
import shutil
import sys
import xml.etree.ElementTree as ElementTree

from . import shared_memory
from .findings import Finding, error, note, ok, warning

# Colour and depth of a 1280x720 camera, some of each: what has to fit into shared memory.
_WANTED_SHARED_MEMORY = 64 << 20
_LEAST_SEGMENT = 8 << 20
_LEAST_WORTH_CLEANING = 256 << 20
_WANTED_SOCKET_BUFFER = 2 << 20
_OPTIONAL = {'mujoco': 'the simulator (grasp_stn simulate, demo)',
             'rerun-sdk': 'the viewer (grasp_stn view)',
             'mcap-ros2-support': 'recordings (grasp_stn record, replay)'}
_PROFILE_VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')


def check_device(device: str) -> Iterator[Finding]:
    """PyTorch, and the device that the network would run on."""
    try:
        import torch
    except (ImportError, OSError) as problem:
        yield error('device.torch', f'PyTorch cannot be imported: {problem}',
                    'install the version in constraints.txt: pip install torch')
        return
    cores = os.cpu_count() or 1
    yield ok('device.torch', f'PyTorch {torch.__version__}, Python '
                             f'{sys.version.split()[0]}, {cores} CPU cores')
    if torch.cuda.is_available():
        names = ', '.join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        yield ok('device.cuda', f'CUDA: {names}')
    elif device.startswith('cuda'):
        yield error('device.cuda', f'device {device} is asked for, but PyTorch sees no CUDA '
                    'device', 'check nvidia-smi; `pip install torch` from the index of CPU builds '
                    'has no CUDA; or use device auto')
    elif shutil.which('nvidia-smi'):
        yield warning('device.cuda', 'there is an NVIDIA driver, but PyTorch sees no GPU: the '
                      'network runs on the CPU', 'install a PyTorch with CUDA that fits the '
                      'driver: https://pytorch.org/get-started/locally')
    else:
        yield note('device.cuda', 'no GPU: the network runs on the CPU')
    from ..device import cpu_has_bf16
    if not torch.cuda.is_available():
        yield note('device.precision', 'bf16 in hardware' if cpu_has_bf16() else
                   'fp32: this CPU has no bf16 in hardware')


def check_weights(model: str) -> Iterator[Finding]:
    """Whether the weights are there, whole, and fit their sidecar."""
    from ..detector import default_weights
    from ..stn import checkpoint
    try:
        path = default_weights() if model == 'default' else Path(model)
        network, sidecar = checkpoint.load(path)
    except (checkpoint.CheckpointError, OSError) as problem:
        yield error('weights', str(problem), 'name another file with --model, or get the weights '
                    'again (git checkout models, or install the package again)')
        return
    count = sum(p.numel() for p in network.parameters())
    yield ok('weights', f'{path.name}: {count / 1e6:.1f} M parameters, '
                        f'{path.stat().st_size / 1e6:.1f} MB, checksum is right, '
                        f'licence {sidecar.get("licence", "unknown")}')


def check_packages() -> Iterator[Finding]:
    """What can be done without, and what for."""
    for package, purpose in _OPTIONAL.items():
        try:
            yield ok(f'package.{package}', f'{package} {importlib.metadata.version(package)}')
        except importlib.metadata.PackageNotFoundError:
            yield note(f'package.{package}', f'{package} is not installed: no {purpose}',
                       f'pip install {package}')


def check_shared_memory(folder: str | Path = shared_memory.FOLDER) -> Iterator[Finding]:
    """Room for images between processes."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        yield warning('dds.shared_memory', f'there is no {folder}',
                      'in a container, share it: docker run --ipc=host')
        return
    dead = shared_memory.dead_segments(Path(folder))
    size = sum(segment.stat().st_size for segment in dead if segment.exists())
    left = f', {size / 2**20:.0f} MiB are left of {len(dead)} killed processes' if dead else ''
    clean = 'free what killed processes left there: grasp_stn doctor --clean'
    message = f'{folder} has {free / 2**20:.0f} MiB free{left}'
    if free < _WANTED_SHARED_MEMORY:
        container = 'in a container: docker run --shm-size=1g, or --ipc=host'
        yield error('dds.shared_memory', f'{message}, too little for images',
                    f'{clean}; {container}' if dead else container)
    elif size >= _LEAST_WORTH_CLEANING:
        yield note('dds.shared_memory', message, clean)
    else:
        yield ok('dds.shared_memory', message)


def check_dds(environ: Mapping[str, str], middleware: str, own_profile: str) -> Iterator[Finding]:
    """Whether images fit through the middleware (``middleware`` as rclpy names it)."""
    if 'fastrtps' not in middleware:
        yield note('dds.profile', f'{middleware}: only Fast DDS is tested here')
        yield from check_socket_buffers()
        return
    transports = environ.get('FASTDDS_BUILTIN_TRANSPORTS', '')
    named = next((v for v in _PROFILE_VARIABLES if environ.get(v)), None)
    advice = f'export FASTDDS_DEFAULT_PROFILES_FILE={own_profile} for camera driver and node ' \
             '(the launch files do it for the node)'
    if named is not None:
        yield _profile(Path(environ[named]), named, advice)
    elif transports.upper().startswith('LARGE_DATA'):
        yield ok('dds.profile', f'FASTDDS_BUILTIN_TRANSPORTS={transports}')
    else:
        yield warning('dds.profile', "Fast DDS's default shared-memory segment (512 kB) is "
                      'smaller than one image: best-effort images are lost in silence', advice)
        yield from check_socket_buffers()


def _profile(path: Path, variable: str, advice: str) -> Finding:
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as problem:
        return error('dds.profile', f'{variable}={path} cannot be read: {problem}', advice)
    sizes = [int(e.text) for e in root.iter()
             if e.tag.rpartition('}')[2] == 'segment_size' and (e.text or '').strip().isdigit()
             and e.text]
    if not sizes:
        return warning('dds.profile', f'{path} sets no size of the shared-memory segment', advice)
    if max(sizes) < _LEAST_SEGMENT:
        return warning('dds.profile', f'{path}: a shared-memory segment of '
                       f'{max(sizes) / 2**20:.1f} MiB holds only few images', advice)
    return ok('dds.profile', f'{path.name}: shared-memory segment of '
                             f'{max(sizes) / 2**20:.0f} MiB')


def check_socket_buffers(folder: str = '/proc/sys/net/core') -> Iterator[Finding]:
    """Largest receive buffer of a socket: images over the network are cut into many packets."""
    try:
        size = int((Path(folder) / 'rmem_max').read_text())
    except (OSError, ValueError):
        return
    if size < _WANTED_SOCKET_BUFFER:
        yield warning('dds.socket_buffer', f'net.core.rmem_max is {size} bytes: packets of images '
                      'are lost where they come over the network',
                      'sudo sysctl -w net.core.rmem_max=8388608')
    else:
        yield ok('dds.socket_buffer', f'net.core.rmem_max is {size / 2**20:.0f} MiB')
