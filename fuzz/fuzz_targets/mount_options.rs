#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mongo_backupfs::fuzzing::mount_options(data));
