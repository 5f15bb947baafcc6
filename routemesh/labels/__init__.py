"""Labels of a service that have a meaning: what they say, what they refuse. PURE."""
