"""Open a data set of any layout by its folder."""

from __future__ import annotations

from pathlib import Path

from .cornell import CornellDataset
from .sample import DataError
from .simulated import SimulatedDataset


def open_dataset(*folders: str | Path, cache: bool = False, limit: int | None = None) \
        -> SimulatedDataset | CornellDataset:
    """
    Tell the layout by what is in the folder; several folders only of simulated data.

    ``cache`` and ``limit`` as in the data sets. Raises :class:`DataError`.
    """
    folder = Path(folders[0])
    if any((Path(f) / 'dataset.json').exists() for f in folders):
        return SimulatedDataset(*folders, cache=cache, limit=limit)
    if any(folder.glob('*/pcd*')):
        if len(folders) > 1:
            raise DataError(f'{folder} is Cornell and cannot be joined with other folders')
        return CornellDataset(folder, cache=cache, limit=limit)
    raise DataError(f'{folder} is neither a simulated data set (dataset.json is missing; make '
                    'one with: grasp_stn simulate) nor Cornell (no NN/pcdNNNN* files)')
