//! Life of a mount: preflight, start, signals, unmount.
