#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mongo_backupfs::fuzzing::ledger(data));
