//! Back-off arithmetic with jitter and budget. Pure.
