//! The pure state machine of one download task: no I/O, no clock.
