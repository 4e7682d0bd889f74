"""Open a data set of any layout by its folder."""

from __future__ import annotations

from pathlib import Path

from .cornell import CornellDataset
from .sample import DataError
from .simulated import SimulatedDataset


def open_dataset(folder: str | Path) -> SimulatedDataset | CornellDataset:
    """Tell the layout by what is in ``folder``; raises :class:`DataError`."""
    folder = Path(folder)
    if (folder / 'dataset.json').exists():
        return SimulatedDataset(folder)
    if any(folder.glob('*/pcd*')):
        return CornellDataset(folder)
    raise DataError(f'{folder} is neither a simulated data set (dataset.json is missing; make '
                    'one with: grasp_stn simulate) nor Cornell (no NN/pcdNNNN* files)')
