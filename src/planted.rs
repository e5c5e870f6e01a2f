//! Bugs on purpose: the proof that the tests would notice them.
//!
//! Only a build with `--cfg planted` has any, and only the one that the environment variable
//! `PLANTED` names when it runs; `scripts/planted-bugs` makes such builds and wants their tests red.
//! Everywhere else [`is`] is `false` when it is compiled, and nothing of this is in the program.

/// Whether the bug of this name is planted.
#[cfg(planted)]
pub(crate) fn is(bug: &str) -> bool {
    std::env::var_os("PLANTED").is_some_and(|planted| planted == bug)
}

/// Whether the bug of this name is planted: never here.
#[cfg(not(planted))]
pub(crate) const fn is(_bug: &str) -> bool {
    false
}
