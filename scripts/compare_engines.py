#!/usr/bin/env python3
"""
Ways to run the network on this CPU, against each other in one run: time and agreement.

Eager PyTorch in single precision and bf16, TorchScript stage by stage in bf16 (as in the detector)
and as a whole, torch.compile, ONNX Runtime, OpenVINO as it is (bf16 throughout where the hardware
has it) and in single precision. An engine that is not installed is left out and said so
(pip install onnx onnxruntime openvino).

    python scripts/compare_engines.py --threads 1 --data data/validation \
        --json results/engines.json

An engine agrees where its best grasp is that of eager fp32, by the strict thresholds of the
rectangle metric, or another one to which eager fp32 gives a score within 0.02 of its best.
"""

from __future__ import annotations

from collections.abc import Callable
import copy
from functools import partial
import importlib
from pathlib import Path
import tempfile
import time

import click
import numpy as np
from rich.console import Console
from rich.table import Table
import torch
from torch import Tensor, nn

from grasp_stn_ros.data.open import open_dataset
from grasp_stn_ros.detector import default_weights
from grasp_stn_ros.evaluation.accuracy import TIED, same_grasp
from grasp_stn_ros.evaluation.benchmark import frames
from grasp_stn_ros.evaluation.report import write_json
from grasp_stn_ros.preprocessing import preprocess
from grasp_stn_ros.rectangle import GraspRectangle
from grasp_stn_ros.rgbd import RgbdFrame
from grasp_stn_ros.stn import checkpoint
from grasp_stn_ros.stn.backbone import fold_batch_norm, round_to_bf16
from grasp_stn_ros.stn.network import GraspNetwork
from grasp_stn_ros.stn.tracing import Tracer

Engine = Callable[[Tensor, Tensor], np.ndarray]


class Packed(nn.Module):
    """The network with everything it decides in one tensor: locations, rectangles, scores."""

    def __init__(self, network: GraspNetwork, candidates: int):
        """Run ``network`` with K = ``candidates``."""
        super().__init__()
        self.network, self.candidates = network, candidates

    def forward(self, image: Tensor, jaw: Tensor) -> Tensor:
        """Image (1, 7, S, S), jaw (1,) -> (K, 8): x, y; rectangle (5); score."""
        out = self.network(image, self.candidates, jaw=jaw)
        return torch.cat([out.locations, out.rectangles, out.scores[..., None]], -1)[0]


def engines(model: Packed, image: Tensor, jaw: Tensor, threads: int) -> dict[str, Engine]:
    """Every engine that there is; the first is the reference."""
    result: dict[str, Engine] = {
        'eager fp32': lambda x, j: model(x, j).numpy(),
        'eager bf16': _bf16(model)}
    builders: dict[str, Callable[[Packed, Tensor, Tensor, int], Engine]] = {
        'TorchScript by stages, bf16': _by_stages,
        'TorchScript, frozen': _torchscript, 'torch.compile': _compiled,
        'ONNX Runtime': _onnx, 'OpenVINO': _openvino,
        'OpenVINO, fp32': partial(_openvino, precision='f32')}
    for name, build in builders.items():
        try:
            start = time.perf_counter()
            engine = build(model, image, jaw, threads)
            engine(image, jaw)
            click.echo(f'{name}: ready after {time.perf_counter() - start:.1f} s')
            result[name] = engine
        except Exception as error:  # whatever an engine cannot do is a result of this comparison
            click.echo(f'{name}: left out, {type(error).__name__}: {str(error)[:200]}')
    return result


def _bf16(model: Packed) -> Engine:
    rounded = round_to_bf16(copy.deepcopy(model))

    def run(x: Tensor, jaw: Tensor) -> np.ndarray:
        with torch.autocast('cpu', torch.bfloat16):
            return rounded(x, jaw).float().numpy()
    return run


def _by_stages(model: Packed, image: Tensor, jaw: Tensor, threads: int) -> Engine:
    """Return what the detector does."""
    rounded = round_to_bf16(copy.deepcopy(model))
    rounded.network.tracer = Tracer(rounded.network, bf16=True)
    return lambda x, j: rounded(x, j).float().numpy()


def _torchscript(model: Packed, image: Tensor, jaw: Tensor, threads: int) -> Engine:
    traced = torch.jit.freeze(torch.jit.trace(model, (image, jaw), check_trace=False).eval())
    for _ in range(3):
        traced(image, jaw)
    return lambda x, j: traced(x, j).numpy()


def _compiled(model: Packed, image: Tensor, jaw: Tensor, threads: int) -> Engine:
    compiled = torch.compile(model, dynamic=False)
    return lambda x, j: compiled(x, j).numpy()


def _onnx_file(model: Packed, image: Tensor, jaw: Tensor, folder: str) -> str:
    path = str(Path(folder) / 'network.onnx')
    torch.onnx.export(model, (image.contiguous(), jaw), path, input_names=['image', 'jaw'],
                      opset_version=18, dynamo=False)
    return path


def _onnx(model: Packed, image: Tensor, jaw: Tensor, threads: int) -> Engine:
    onnxruntime = importlib.import_module('onnxruntime')
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder:
        session = onnxruntime.InferenceSession(_onnx_file(model, image, jaw, folder), options,
                                               providers=['CPUExecutionProvider'])
    names = [i.name for i in session.get_inputs()]

    def run(x: Tensor, j: Tensor) -> np.ndarray:
        values = {'image': x.contiguous().numpy(), 'jaw': j.numpy()}
        return session.run(None, {name: values[name] for name in names})[0]
    return run


def _openvino(model: Packed, image: Tensor, jaw: Tensor, threads: int,
              precision: str = '') -> Engine:
    openvino = importlib.import_module('openvino')
    converted = openvino.convert_model(model, example_input=(image.contiguous(), jaw))
    options = {'INFERENCE_NUM_THREADS': threads,
               **({'INFERENCE_PRECISION_HINT': precision} if precision else {})}
    compiled = openvino.compile_model(converted, 'CPU', options)
    return lambda x, j: np.array(compiled([x.contiguous().numpy(), j.numpy()])[0])


def _rectangle(row: np.ndarray) -> GraspRectangle:
    return GraspRectangle(*(float(v) for v in row[2:7]))


def agrees(answer: np.ndarray, reference: np.ndarray) -> bool:
    """Tell whether the best of ``answer`` (K, 8) is one of the best of ``reference`` (K, 8)."""
    best = _rectangle(answer[answer[:, 7].argmax()])
    tied = reference[reference[:, 7] > reference[:, 7].max() - TIED]
    return any(same_grasp(best, _rectangle(row)) for row in tied)


def _prepared(images: list[RgbdFrame]) -> list[tuple[Tensor, Tensor]]:
    inputs = []
    for frame in images:
        # All of one size, whatever the network would be shown: some engines are built for one.
        prepared = preprocess(frame)
        image = torch.from_numpy(prepared.channels)[None]
        inputs.append((image.contiguous(memory_format=torch.channels_last),
                       torch.tensor([prepared.jaw(0.02)])))
    return inputs


@click.command()
@click.option('--model', type=click.Path(path_type=Path), help='Default: the shipped one.')
@click.option('--threads', multiple=True, type=int, default=(1, 2), show_default=True)
@click.option('--data', type=click.Path(exists=True, path_type=Path),
              help='Images to run on. Default: the six of the benchmark.')
@click.option('--repetitions', default=40, show_default=True)
@click.option('--json', 'output', type=click.Path(path_type=Path))
def main(model: Path | None, threads: tuple[int, ...], data: Path | None, repetitions: int,
         output: Path | None) -> None:
    """Compare the engines."""
    network, _ = checkpoint.load(model or default_weights())
    folded = fold_batch_norm(network.eval())
    folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    packed = Packed(folded, network.config.candidates).eval().requires_grad_(False)
    torch.set_flush_denormal(True)
    if data is None:
        images = frames()
    else:
        labelled = open_dataset(data)
        images = [labelled[i].frame for i in range(min(repetitions, len(labelled)))]
    inputs = _prepared(images)
    result = {}
    for count in threads:
        torch.set_num_threads(count)
        with torch.inference_mode():
            ready = engines(packed, *inputs[0], count)
        times: dict[str, list[float]] = {name: [] for name in ready}
        same: dict[str, list[bool]] = {name: [] for name in ready}
        with torch.inference_mode():
            for i in range(repetitions):
                image, jaw = inputs[i % len(inputs)]
                reference = None
                for name, engine in ready.items():
                    start = time.perf_counter()
                    answer = engine(image, jaw)
                    times[name].append((time.perf_counter() - start) * 1e3)
                    reference = answer if reference is None else reference
                    same[name].append(agrees(answer, reference))
        base = times['eager fp32']
        result[str(count)] = {name: {
            'median_ms': float(np.median(values)), 'best_ms': float(np.min(values)),
            'ratio': float(np.median(np.array(values) / np.array(base))),
            'same_best_or_tied': float(np.mean(same[name]))}
            for name, values in times.items()}
        table = Table(title=f'network alone, {count} threads')
        for column in ('engine', 'median ms', 'best ms', 'times eager fp32', 'same best grasp'):
            table.add_column(column, justify='left' if column == 'engine' else 'right')
        for name, row in result[str(count)].items():
            table.add_row(name, f'{row["median_ms"]:.1f}', f'{row["best_ms"]:.1f}',
                          f'{row["ratio"]:.2f}', f'{row["same_best_or_tied"]:.0%}')
        Console().print(table)
    if output:
        write_json(output, {'repetitions': repetitions, 'frames': len(inputs), 'threads': result,
                            'split': data.name if data else 'benchmark'})


if __name__ == '__main__':
    main()
