"""Is a schedule right: its tables against each other, what its last step leaks, where its noise vanishes, whether a weighting falls."""
