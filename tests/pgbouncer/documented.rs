//! docs/from-pgbouncer.md says of each setting what the translation does.

use std::fs;

use pgspan::config::ini::SETTINGS;

#[test]
fn each_setting_has_its_row_in_the_guide() {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/from-pgbouncer.md");
    let guide = fs::read_to_string(guide).unwrap();
    let (_, table) = guide.split_once("## Settings of `[pgbouncer]`").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let rows: Vec<_> = table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    let expected: Vec<_> = SETTINGS
        .iter()
        .map(|setting| {
            let becomes = setting.becomes().map_or_else(String::new, |keys| {
                format!("`{}`", keys.replace(", ", "`, `"))
            });
            format!(
                "| `{}` | {} | {becomes} | {} |",
                setting.key,
                setting.grade(),
                setting.note
            )
        })
        .collect();
    assert_eq!(rows, expected);
}
