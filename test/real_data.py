"""Where the real images are that some tests need."""

import os
from pathlib import Path

import pytest

CORNELL = Path(os.environ.get('GRASP_STN_CORNELL',
                              Path(__file__).resolve().parents[2] / 'shared/data/cornell'))
needs_cornell = pytest.mark.skipif(
    not (CORNELL / 'objects.csv').exists(),
    reason='the Cornell images are missing; set GRASP_STN_CORNELL to their folder')
