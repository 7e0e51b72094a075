#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mail_account::fuzzing::reader(data));
