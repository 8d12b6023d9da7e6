"""One folder for each kind of record: a question in, a record out."""
