"""A page before and after it is rendered: blocks, the document, its renderers."""
