//! What the program says of a configuration, and how it ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::{pgspan, stderr, stdout};

#[test]
fn check_says_good_and_warns_of_a_password_file_that_everyone_reads() {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("ann");
    fs::write(&password, "hush\n").unwrap();
    fs::set_permissions(&password, fs::Permissions::from_mode(0o644)).unwrap();
    let config = folder.path().join("pgspan.toml");
    fs::write(
        &config,
        "[databases.app]\n[users.ann]\npassword_file = \"ann\"\n",
    )
    .unwrap();

    let output = pgspan(&["check", &config.display().to_string()]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), format!("{}: good\n", config.display()));
    assert_eq!(
        stderr(&output),
        format!(
            "{}:3:17: `password_file` in [users.ann]: {} can be read by everyone: chmod 600 (warning)\n",
            config.display(),
            password.display()
        )
    );
}

#[test]
fn check_warns_of_a_secret_in_a_configuration_that_everyone_reads() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("pgspan.toml");
    let users = "[users.ann]\npassword = \"${HUSH}\"\n[users.bob]\npassword = \"hush\"\n";
    fs::write(&config, format!("[databases.app]\n{users}")).unwrap();
    let check = |mode| {
        fs::set_permissions(&config, fs::Permissions::from_mode(mode)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgspan"));
        let output = command
            .arg("check")
            .arg(&config)
            .env("HUSH", "hush")
            .output();
        stderr(&output.unwrap()).to_owned()
    };
    assert_eq!(check(0o640), "");
    let name = config.display();
    assert_eq!(
        check(0o644),
        format!(
            "{name}:5:12: `password` in [users.bob]: a secret stands in {name}, which everyone can read: chmod 600 (warning)\n"
        )
    );
}

#[test]
fn check_warns_of_rules_that_trust_everyone_or_that_nobody_can_keep_to() {
    let folder = tempfile::tempdir().unwrap();
    let hba = "local all all trust\nhost all all all trust\nhostssl all ann all cert\n";
    fs::write(folder.path().join("hba"), hba).unwrap();
    let config = folder.path().join("pgspan.toml");
    let text = "[auth]\nmethod = \"hba\"\nhba_file = \"hba\"\n[databases.app]\n[users.ann]\n";
    fs::write(&config, text).unwrap();
    let output = pgspan(&["check", &config.display().to_string()]);
    assert_eq!(output.status.code(), Some(0));
    let told = stderr(&output);
    let rules = folder.path().join("hba").display().to_string();
    for warning in [
        format!("{rules}:2: everyone who reaches this machine can log in without proof (warning)"),
        format!(
            "{rules}:3: nobody can show a certificate: [listen.tls] needs a mode and `ca` (warning)"
        ),
    ] {
        assert!(told.contains(&warning), "{told}");
    }
    assert_eq!(told.lines().count(), 2, "{told}");
}

#[test]
fn a_wrong_configuration_ends_every_command_with_2_and_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("pgspan.toml");
    fs::write(&config, "[pool]\nsice = 20\n").unwrap();
    let name = config.display().to_string();
    for arguments in [&["check", &name][..], &["run", &name], &[&name]] {
        let output = pgspan(arguments);
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(stdout(&output), "");
        assert_eq!(
            stderr(&output),
            format!("{name}:2:1: unknown key `sice` in [pool], did you mean `size`?\n")
        );
    }
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let output = pgspan(&["check", "/nowhere/config.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        stderr(&output),
        "/nowhere/config.toml: No such file or directory (os error 2)\n"
    );
}

#[test]
fn without_a_name_the_usual_places_are_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.toml"), "pool = 1").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_pgspan"))
        .env_clear()
        .current_dir(folder.path())
        .output()
        .expect("pgspan starts");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        stderr(&output),
        "config.toml:1:8: [pool]: expected a table, found a number\n"
    );
}
