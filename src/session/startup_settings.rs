//! What a client's startup packet sets, as the server shall have it set.

use crate::protocol::error_response::{ErrorResponse, SqlState};
use crate::session::parameters::{ParameterSet, follows, is_parameter_name};
use crate::session::trace::split_options;

/// The settings in the startup parameters, `options` among them, and the application's name apart: it differs from client to
/// client, and needs no server to be told back.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct StartupSettings {
    /// All but the application's name.
    pub settings: ParameterSet,
    /// application_name.
    pub application_name: Option<Box<[u8]>>,
}

impl StartupSettings {
    /// Reads them, but for those that are `ignored`; where `options` is, all in there but what follows its client.
    /// Where a name comes twice, the last one holds.
    ///
    /// # Errors
    /// A name that no parameter can have, or an option that is not a setting: what PostgreSQL says to it.
    pub fn read<'a>(
        parameters: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
        ignored: &[Box<str>],
    ) -> Result<Self, ErrorResponse> {
        let is_ignored = |name: &[u8]| {
            let mut ignored = ignored.iter().map(|ignored| ignored.as_bytes());
            !follows(name) && ignored.any(|ignored| ignored.eq_ignore_ascii_case(name))
        };
        let mut read = Self::default();
        for (name, value) in parameters {
            match name {
                b"options" => read.read_options(value, is_ignored)?,
                _ if is_ignored(name) => {}
                _ => read.insert(name, value)?,
            }
        }
        Ok(read)
    }

    fn read_options(
        &mut self,
        options: &[u8],
        is_ignored: impl Fn(&[u8]) -> bool,
    ) -> Result<(), ErrorResponse> {
        let are_ignored = is_ignored(b"options");
        let arguments = split_options(options);
        let mut rest = arguments.iter().map(|(_, argument)| &**argument);
        while let Some(argument) = rest.next() {
            let setting = match argument {
                b"-c" => rest.next().unwrap_or_default(),
                [b'-', b'c', setting @ ..] | [b'-', b'-', setting @ ..] => setting,
                _ if are_ignored => continue,
                _ => {
                    let argument = String::from_utf8_lossy(argument);
                    return Err(ErrorResponse::fatal(
                        SqlState::SYNTAX_ERROR,
                        format!("invalid command-line argument for server process: {argument}"),
                    ));
                }
            };
            let equals = setting.iter().position(|byte| *byte == b'=');
            let Some((name, [_, value @ ..])) = equals.map(|at| setting.split_at(at)) else {
                if are_ignored {
                    continue;
                }
                let setting = String::from_utf8_lossy(setting);
                return Err(ErrorResponse::fatal(
                    SqlState::SYNTAX_ERROR,
                    format!("-c {setting} requires a value"),
                ));
            };
            // As ParseLongOption in src/backend/utils/misc/guc.c.
            let name: Vec<u8> = name
                .iter()
                .map(|byte| if *byte == b'-' { b'_' } else { *byte })
                .collect();
            if !is_ignored(&name) && (!are_ignored || follows(&name)) {
                self.insert(&name, value)?;
            }
        }
        Ok(())
    }

    fn insert(&mut self, name: &[u8], value: &[u8]) -> Result<(), ErrorResponse> {
        if !is_parameter_name(name) {
            let name = String::from_utf8_lossy(name);
            return Err(ErrorResponse::fatal(
                SqlState::UNDEFINED_OBJECT,
                format!("unrecognized configuration parameter \"{name}\""),
            ));
        }
        match name.eq_ignore_ascii_case(b"application_name") {
            true => self.application_name = Some(value.into()),
            false => self.settings.insert(name, value),
        }
        Ok(())
    }
}

/// An application's name as the server keeps it: cut to 63 bytes, with what is not printable ASCII replaced.
///
/// Source: `check_application_name` in src/backend/commands/variable.c, `pg_clean_ascii` in src/common/string.c.
pub fn clean_application_name(name: &[u8], server_version: u32) -> Vec<u8> {
    const LIMIT: usize = 63;
    let mut cleaned = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b' '..=b'~' => cleaned.push(*byte),
            _ if server_version < 160_000 => cleaned.push(b'?'),
            _ => cleaned.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
        }
    }
    cleaned.truncate(LIMIT);
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parameters: &[(&str, &str)]) -> Result<StartupSettings, ErrorResponse> {
        read_but(parameters, &[])
    }

    fn read_but(
        parameters: &[(&str, &str)],
        ignored: &[Box<str>],
    ) -> Result<StartupSettings, ErrorResponse> {
        let parameters = parameters
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        StartupSettings::read(parameters, ignored)
    }

    #[test]
    fn what_is_to_be_ignored_is_left_out_unless_it_follows_clients() {
        let asked = [
            ("extra_float_digits", "2"),
            ("TimeZone", "UTC"),
            ("options", "-c geqo=off -W -c datestyle=german"),
        ];
        let names = |ignored: &[&str]| {
            let ignored: Vec<Box<str>> = ignored.iter().map(|name| Box::from(*name)).collect();
            let read = read_but(&asked, &ignored)?;
            let names = read.settings.iter();
            Ok(names
                .map(|(name, _)| String::from_utf8_lossy(name).into_owned())
                .collect::<Vec<_>>())
        };
        let ignored = ["Extra_float_digits", "options", "TimeZone"];
        assert_eq!(names(&ignored).unwrap(), ["datestyle", "TimeZone"]);
        let refused: ErrorResponse = names(&["geqo"]).unwrap_err();
        assert_eq!(refused.code, SqlState::SYNTAX_ERROR);
    }

    #[test]
    fn options_are_settings_too() {
        let read = read(&[
            ("application_name", "shop"),
            (
                "options",
                r"-c search_path=a,\ b --statement-timeout=5s -cwork_mem=1MB",
            ),
            ("TimeZone", "UTC"),
        ])
        .unwrap();
        let settings: Vec<_> = read
            .settings
            .iter()
            .map(|(name, value)| [name, value].map(String::from_utf8_lossy))
            .collect();
        assert_eq!(
            settings,
            [
                ["search_path", "a, b"],
                ["statement_timeout", "5s"],
                ["TimeZone", "UTC"],
                ["work_mem", "1MB"]
            ]
        );
        assert_eq!(read.application_name.as_deref(), Some(&b"shop"[..]));
    }

    #[test]
    fn what_can_be_no_parameter_is_refused_as_postgresql_does() {
        assert_eq!(
            read(&[("a b", "c")]).unwrap_err().code,
            SqlState::UNDEFINED_OBJECT
        );
        assert_eq!(
            read(&[("options", "-W")]).unwrap_err().code,
            SqlState::SYNTAX_ERROR
        );
        assert_eq!(
            read(&[("options", "-c x")]).unwrap_err().message,
            "-c x requires a value"
        );
    }

    #[test]
    fn an_application_name_is_cleaned_as_the_servers_version_does() {
        assert_eq!(
            clean_application_name("caf\u{e9}".as_bytes(), 150_000),
            b"caf??"
        );
        assert_eq!(
            clean_application_name("caf\u{e9}".as_bytes(), 170_000),
            b"caf\\xc3\\xa9"
        );
        assert_eq!(clean_application_name(&[b'x'; 100], 170_000).len(), 63);
    }
}
