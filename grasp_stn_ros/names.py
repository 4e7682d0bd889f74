"""Names that the command line needs before anything heavy is imported."""

# The rows of Table I, in its order.
SYSTEMS = ('sae_sliding_window', 'cnn_sliding_window', 'regression', 'single_stage_stn',
           'multi_stage_stn')
# What they were trained on.
TABLES = ('simulated', 'cornell')
# What simulated scenes are drawn from.
SIMULATED = ('basic', 'wide', 'tabletop', 'field', 'large')
# What of a frame a network may see.
MODALITIES = ('rgbd', 'rgb', 'depth')


def table_weights(table: str, system: str) -> str:
    """File name in models/ of the weights of a row of a table."""
    return f'table_{table}_{system}.safetensors'

# Imported labels: which edge of a rectangle is the opening, and names of grasps that do not work.
OPENINGS = ('first', 'longer', 'shorter')
NEGATIVE = ('negative', 'bad', 'fail', 'failure', 'cneg')
# What pictures are written as.
PICTURES = ('.png', '.jpg', '.jpeg')
