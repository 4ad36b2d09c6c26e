//! pg_ident.conf: whatever it says, there are maps or complaints with their lines; and what a map allows, it says.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgspan_fuzz::auth::ident::IdentMaps;

fuzz_target!(|input: (&str, &str, &str, &str)| {
    let (text, map, system, user) = input;
    match IdentMaps::parse(text) {
        Err(errors) => {
            assert!(!errors.is_empty());
            let lines = text.lines().count();
            assert!(errors.iter().all(|error| (1..=lines).contains(&error.line)));
        }
        Ok(maps) => {
            if maps.allows(map, system, user) {
                assert!(maps.contains(map), "a map that is not there");
                assert!(text.contains(map), "a map that nobody wrote");
            }
            // Each line by itself says what all of them say together.
            let names: Vec<_> = text.split_ascii_whitespace().take(8).collect();
            for line in text.lines() {
                let alone = IdentMaps::parse(line).expect("a line of a good file");
                for (map, system) in names.iter().zip(names.iter().skip(1)) {
                    assert!(!alone.allows(map, system, user) || maps.allows(map, system, user));
                }
            }
        }
    }
});
