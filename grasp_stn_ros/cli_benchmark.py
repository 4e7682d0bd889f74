"""``grasp_stn benchmark``: how long a detection takes on this machine."""

from __future__ import annotations

from pathlib import Path
import sys

import click


@click.command()
@click.option('--model', default='default', show_default=True,
              help='A .safetensors file; default is the one that comes with the package.')
@click.option('--device', default='cpu', show_default=True, help='auto, cpu, cuda or cuda:N')
@click.option('--threads', type=click.IntRange(1), multiple=True, default=(1, 2),
              show_default=True, help='CPU threads of the network; may be given several times.')
@click.option('--precision', type=click.Choice(('auto', 'fp32', 'bf16')), default='auto',
              show_default=True, help='auto: bf16 where the hardware multiplies it.')
@click.option('--repetitions', type=click.IntRange(10), default=100, show_default=True)
@click.option('--systems/--no-systems', default=True, show_default=True,
              help="Also the systems of the paper's Table I, in turns with the model.")
@click.option('--json', 'output', type=click.Path(dir_okay=False, path_type=Path),
              help='Write the result there, and its tables as .md beside it.')
def benchmark(model: str, device: str, threads: tuple[int, ...], precision: str,
              repetitions: int, systems: bool, output: Path | None) -> None:
    """
    Time a detection, from a 640x480 RGB-D frame in memory to a grasp pose, stage by stage.

    Against the systems of Table I in turns, against the number of candidates and the size of the
    image; and the peak memory. Nothing else should run on the machine meanwhile.
    """
    from rich.console import Console
    from rich.markdown import Markdown
    from rich.progress import track

    from .atomic import write_atomically
    from .evaluation import benchmark as timing
    from .evaluation.report import write_json
    from .stn.checkpoint import CheckpointError
    try:
        result = timing.run(model, device, threads, repetitions, systems, precision,
                            lambda sequence: track(sequence, 'frames',
                                                   disable=not sys.stderr.isatty()))
    except (CheckpointError, ValueError, RuntimeError) as error:
        raise click.ClickException(str(error)) from None
    text = timing.markdown(result)
    Console().print(Markdown(text))
    if output:
        write_json(output, result)
        write_atomically(output.with_suffix('.md'), text.encode())
