//! Every target: the daemon's function of the binary's name.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| server::fuzz::target(env!("CARGO_BIN_NAME"))(data));
