"""Coverage and cost of the budgeted estimate of bits/dim: records of kind `estimator`."""
