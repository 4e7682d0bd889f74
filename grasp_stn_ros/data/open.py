"""Open a data set of any layout by its folder."""

from __future__ import annotations

from pathlib import Path

from .cornell import CornellDataset
from .jacquard import JacquardDataset
from .sample import DataError
from .simulated import SimulatedDataset


def is_simulated(folder: str | Path) -> bool:
    """Tell whether ``folder`` holds simulated data."""
    return (Path(folder) / 'dataset.json').exists()


def open_dataset(*folders: str | Path, cache: bool = False, limit: int | None = None,
                 own: bool = False) -> SimulatedDataset | CornellDataset | JacquardDataset:
    """
    Tell the layout by what is in the folder; several folders only of simulated data.

    ``cache``, ``limit`` and ``own`` as in the data sets; Jacquard is read with stereo depth and
    not kept in memory. Raises :class:`DataError`.
    """
    folder = Path(folders[0])
    if any(is_simulated(f) for f in folders):
        return SimulatedDataset(*folders, cache=cache, limit=limit, own=own)
    for layout, found in (('Cornell', any(folder.glob('*/pcd*'))),
                          ('Jacquard', any(folder.rglob('*_grasps.txt')))):
        if not found:
            continue
        if len(folders) > 1:
            raise DataError(f'{folder} is {layout} and cannot be joined with other folders')
        if layout == 'Jacquard':
            return JacquardDataset(folder, limit=limit)
        return CornellDataset(folder, cache=cache, limit=limit)
    raise DataError(f'{folder} is neither a simulated data set (dataset.json is missing; make '
                    'one with: grasp_stn simulate) nor Cornell (no NN/pcdNNNN* files) nor '
                    'Jacquard (no OBJECT/*_grasps.txt)')
