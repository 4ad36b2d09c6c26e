//! A userlist file: whatever it says, there are users or the line that is none.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgspan_fuzz::auth::verifier::Verifier;
use pgspan_fuzz::config::secret::Secret;
use pgspan_fuzz::config::userlist::parse_userlist;

fuzz_target!(|text: &str| {
    match parse_userlist(text) {
        Err(line) => assert!(line > 0 && line <= text.lines().count()),
        Ok(users) => {
            for user in users {
                assert!(!user.user.is_empty());
                let _ = Verifier::parse(&Secret::new(&*user.password));
            }
        }
    }
});
