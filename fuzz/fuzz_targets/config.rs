//! A configuration file: whatever it says, there is a configuration or a complaint.

#![no_main]

use std::io;

use libfuzzer_sys::fuzz_target;
use pgspan_fuzz::config::Config;

fuzz_target!(|text: &str| {
    let environment = |name: &str| (name.len() < 3).then(|| "secret".to_owned());
    match Config::from_toml(text, "config.toml", &environment, &|_| {
        Err(io::ErrorKind::NotFound.into())
    }) {
        Ok(checked) => assert!(!format!("{:?}", checked.config).contains("\"secret\"")),
        Err(errors) => assert!(!errors.to_string().is_empty()),
    }
});
