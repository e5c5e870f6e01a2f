//! Which artifacts leave first when the cache is full. Pure.
