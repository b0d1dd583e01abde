"""What all features share at the edge: admission, problems, middleware, strict JSON, paging, ETags."""
