"""The laws on implementations: records of kind `verify`."""
