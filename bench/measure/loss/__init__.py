"""Records of losses on their own: the least training loss of a data set, and a validation loss with its interval."""
