"""Several measurements in a row, each a part that cannot sink the others."""
