use proptest::prelude::*;

use super::*;

fn hba(text: &str) -> Hba {
    Hba::parse(text, &|_| None, &IdentMaps::default()).unwrap()
}

fn why(line: &str) -> String {
    let errors = Hba::parse(line, &|_| None, &IdentMaps::default()).unwrap_err();
    errors.iter().map(|error| error.why.to_string()).collect()
}

/// `database user address [tls] [replication]`; the address `unix` is a unix socket.
fn met(hba: &Hba, visitor: &str) -> Option<HbaMethod> {
    let words: Vec<_> = visitor.split(' ').collect();
    let [database, user, address, ref rest @ ..] = *words else {
        panic!("{visitor}");
    };
    hba.rule_for(&Visitor {
        address: (address != "unix").then(|| address.parse().unwrap()),
        is_encrypted: rest.contains(&"tls"),
        is_physical_replication: rest.contains(&"replication"),
        database,
        user,
    })
    .map(|rule| rule.method)
}

#[test]
fn local_rules_are_for_unix_sockets_and_the_others_for_addresses() {
    let hba = hba("local all all peer\nhost all all 127.0.0.0/8 md5");
    assert_eq!(met(&hba, "db ann unix"), Some(HbaMethod::Peer));
    assert_eq!(met(&hba, "db ann 127.3.2.1"), Some(HbaMethod::Md5));
    assert_eq!(met(&hba, "db ann 128.0.0.1"), None);
}

#[test]
fn the_first_rule_that_fits_holds() {
    let hba = hba("\
        host db eve 10.0.0.0/8 reject\n\
        host db all 10.0.0.0/8 md5\n\
        host all all 10.0.0.0/8 trust");
    assert_eq!(met(&hba, "db eve 10.1.1.1"), Some(HbaMethod::Reject));
    assert_eq!(met(&hba, "db ann 10.1.1.1"), Some(HbaMethod::Md5));
    assert_eq!(met(&hba, "other eve 10.1.1.1"), Some(HbaMethod::Trust));
}

#[test]
fn a_rule_may_be_for_encrypted_or_clear_connections_only() {
    let hba = hba("hostssl all all 10.0.0.0/8 cert\nhostnossl all all 10.0.0.0/8 reject");
    assert_eq!(met(&hba, "db ann 10.0.0.1 tls"), Some(HbaMethod::Cert));
    assert_eq!(met(&hba, "db ann 10.0.0.1"), Some(HbaMethod::Reject));
}

#[test]
fn addresses_have_a_width_or_a_mask() {
    let hba = hba("\
        host a all 199.199.199.199/32 cert\n\
        host b all 128.0.0.0/1 md5\n\
        host c all 127.0.0.0 255.255.255.0 trust\n\
        host d all ff20::/12 password\n\
        host e all ::1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff trust\n\
        host f all 0.0.0.0/0 md5\n\
        host g all all scram-sha-256");
    assert_eq!(met(&hba, "a u 199.199.199.199"), Some(HbaMethod::Cert));
    assert_eq!(met(&hba, "a u 199.199.199.198"), None);
    assert_eq!(met(&hba, "b u 254.1.1.1"), Some(HbaMethod::Md5));
    assert_eq!(met(&hba, "b u 127.1.1.1"), None);
    assert_eq!(met(&hba, "c u 127.0.0.9"), Some(HbaMethod::Trust));
    assert_eq!(met(&hba, "c u 127.0.1.9"), None);
    assert_eq!(met(&hba, "d u ff22:3::1"), Some(HbaMethod::Password));
    assert_eq!(met(&hba, "d u ff30::1"), None);
    assert_eq!(met(&hba, "e u ::1"), Some(HbaMethod::Trust));
    assert_eq!(met(&hba, "e u ::2"), None);
    assert_eq!(met(&hba, "f u 1.2.3.4"), Some(HbaMethod::Md5));
    assert_eq!(met(&hba, "f u ::1"), None);
    assert_eq!(met(&hba, "g u face::1"), Some(HbaMethod::Scram));
}

#[test]
fn an_ipv4_client_is_one_also_on_an_ipv6_socket() {
    let hba = hba("host all all 10.0.0.0/8 md5");
    assert_eq!(met(&hba, "db ann ::ffff:10.1.1.1"), Some(HbaMethod::Md5));
}

#[test]
fn names_are_lists_and_quotes_take_the_meaning_from_keywords() {
    let hba = hba("\
        host tmp,db u1,u2 , u3 16.0.0.0/8 md5\n\
        host \"all\" \"all\" 19.0.0.0/8 cert\n\
        host \"q1\"\"q2\" \"a , b\" 19.0.0.0/8 cert # comment\n\
        \t \n\
        host sameuser all 20.0.0.0/8 md5");
    assert_eq!(met(&hba, "db u3 16.0.0.1"), Some(HbaMethod::Md5));
    assert_eq!(met(&hba, "db u4 16.0.0.1"), None);
    assert_eq!(met(&hba, "db u 19.0.0.2"), None);
    assert_eq!(met(&hba, "all all 19.0.0.2"), Some(HbaMethod::Cert));
    assert_eq!(met(&hba, "ann ann 20.0.0.2"), Some(HbaMethod::Md5));
    assert_eq!(met(&hba, "ann bob 20.0.0.2"), None);
}

#[test]
fn replication_is_of_no_database() {
    let hba = hba("\
        host replication admin ::1/128 trust\n\
        host db2,replication admin2 ::1/128 trust\n\
        host all ann ::1/128 trust");
    assert_eq!(
        met(&hba, "db admin ::1 replication"),
        Some(HbaMethod::Trust)
    );
    assert_eq!(met(&hba, "db admin ::1"), None);
    assert_eq!(met(&hba, "replication admin ::1"), None);
    assert_eq!(
        met(&hba, "db admin2 ::1 replication"),
        Some(HbaMethod::Trust)
    );
    assert_eq!(met(&hba, "db2 admin2 ::1"), Some(HbaMethod::Trust));
    assert_eq!(met(&hba, "replication admin2 ::1"), None);
    assert_eq!(met(&hba, "db ann ::1 replication"), None);
}

#[test]
fn names_may_stand_in_a_file_of_their_own() {
    let files = |name: &str| match name {
        "users" => Some("ann, bob\n# more\n@more\n"),
        "more" => Some("\"eve\""),
        "circle" => Some("@circle"),
        _ => None,
    };
    let parse = |line| Hba::parse(line, &files, &IdentMaps::default());
    let hba = parse("host all @users 10.0.0.0/8 md5").unwrap();
    for user in ["ann", "bob", "eve"] {
        let visitor = format!("db {user} 10.0.0.1");
        assert_eq!(met(&hba, &visitor), Some(HbaMethod::Md5), "{user}");
    }
    assert_eq!(met(&hba, "db more 10.0.0.1"), None);
    assert!(parse("host all @nowhere 10.0.0.0/8 md5").is_err());
    assert!(parse("host all @circle 10.0.0.0/8 md5").is_err());
}

#[test]
fn a_rule_may_name_a_map_that_there_is() {
    let maps = IdentMaps::parse("mymap root ann").unwrap();
    let parse = |line| Hba::parse(line, &|_| None, &maps);
    let hba = parse("local all all peer map=mymap").unwrap();
    let visitor = Visitor {
        address: None,
        is_encrypted: false,
        is_physical_replication: false,
        database: "db",
        user: "ann",
    };
    let rule = hba.rule_for(&visitor).unwrap();
    assert_eq!(rule.map.as_deref(), Some("mymap"));
    assert!(parse("local all all peer map=other").is_err());
}

#[test]
fn what_is_not_understood_is_an_error_with_its_line() {
    for (line, expected) in [
        (
            "hosts all all 10.0.0.0/8 md5",
            "expected local, host, hostssl or hostnossl",
        ),
        ("host", "expected a database"),
        ("host all", "expected a user"),
        ("host all all", "expected an address"),
        ("host all all ten md5", "ten is no IP address"),
        (
            "host all all 10.0.0.0/33 md5",
            "33 is no mask of such an address",
        ),
        (
            "host all all ::1/129 md5",
            "129 is no mask of such an address",
        ),
        (
            "host all all 10.0.0.0 md5",
            "md5 is no mask of such an address",
        ),
        ("host all all 10.0.0.0/8", "expected a method"),
        (
            "host all all 10.0.0.0/8 gss",
            "the method gss is not supported",
        ),
        (
            "host all all 10.0.0.0/8 md5 clientcert=1",
            "the option clientcert=1 is not supported",
        ),
        (
            "host all +admins 10.0.0.0/8 md5",
            "+admins: members of a role are not known here",
        ),
        (
            "host samerole all 10.0.0.0/8 md5",
            "samerole is not supported",
        ),
        ("host all \"ann 10.0.0.0/8 md5", "a quote is not closed"),
        ("local all all peer map=none", "there is no ident map none"),
    ] {
        assert_eq!(why(line), expected, "{line}");
    }
    let errors = Hba::parse("# fine\nlocal x\n\nhost", &|_| None, &IdentMaps::default());
    let lines: Vec<_> = errors.unwrap_err().iter().map(|error| error.line).collect();
    assert_eq!(lines, [2, 4]);
}

#[test]
fn trust_of_other_machines_is_found() {
    let hba = hba("\
        local all all trust\n\
        host all all 127.0.0.1/32 trust\n\
        host all all ::1/128 trust\n\
        host all all 10.0.0.0/8 trust\n\
        host all all all trust\n\
        host all all 126.0.0.0/7 trust\n\
        host all all 0.0.0.0/0 md5");
    assert_eq!(hba.trusting_lines().collect::<Vec<_>>(), [4, 5, 6]);
}

proptest! {
    #[test]
    fn any_text_is_rules_or_errors(text in "[a-z0-9.:/,@+#\" \n=-]{0,200}") {
        let _ = Hba::parse(&text, &|_| Some("a, @b"), &IdentMaps::default());
        let _ = IdentMaps::parse(&text);
    }
}
