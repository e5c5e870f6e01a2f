//! How far to read ahead: pure arithmetic.
