//! Remote text to path components and back: injective, safe, at most 255 bytes.
