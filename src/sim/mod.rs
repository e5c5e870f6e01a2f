//! The simulated clouds of `demo` and the tests: strict about signatures, with faults and a bill
//! counter.
