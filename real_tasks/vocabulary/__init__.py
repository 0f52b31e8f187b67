"""What all rooms speak of: types, configuration, registry, errors."""
