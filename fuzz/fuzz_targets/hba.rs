//! pg_hba.conf and pg_ident.conf: whatever they say, there are rules or complaints, and an answer for everyone at the door.

#![no_main]

use std::net::{IpAddr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use pgspan_fuzz::auth::hba::{Hba, Visitor};
use pgspan_fuzz::auth::ident::IdentMaps;

fuzz_target!(|input: (&str, &str, &str, [u8; 16], u8)| {
    let (rules, maps, names, address, bits) = input;
    let maps = match IdentMaps::parse(maps) {
        Ok(maps) => maps,
        Err(errors) => {
            assert!(!errors.is_empty());
            IdentMaps::default()
        }
    };
    let included = |name: &str| (name.len() < 4).then_some(names);
    match Hba::parse(rules, &included, &maps) {
        Err(errors) => assert!(errors.iter().all(|error| error.line > 0)),
        Ok(hba) => {
            let (database, user) = names.split_once(' ').unwrap_or((names, "ann"));
            let address = IpAddr::from(Ipv6Addr::from(address)).to_canonical();
            let rule = hba.rule_for(&Visitor {
                address: (bits & 1 == 1).then_some(address),
                is_encrypted: bits & 2 == 2,
                is_physical_replication: bits & 4 == 4,
                database,
                user,
            });
            if let Some(map) = rule.and_then(|rule| rule.map.as_deref()) {
                assert!(maps.contains(map), "a map that is not there");
            }
        }
    }
});
