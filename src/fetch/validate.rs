//! Is this answer what was asked for? Pure.
