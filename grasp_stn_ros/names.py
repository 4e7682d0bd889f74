"""Names that the command line needs before anything heavy is imported."""

# The rows of Table I, in its order.
SYSTEMS = ('sae_sliding_window', 'cnn_sliding_window', 'regression', 'single_stage_stn',
           'multi_stage_stn')
