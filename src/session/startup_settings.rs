//! What a client's startup packet sets, as the server shall have it set.

use crate::protocol::error_response::{ErrorResponse, SqlState};
use crate::session::parameters::{ParameterSet, is_parameter_name};
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
    /// Reads them. Where a name comes twice, the last one holds.
    ///
    /// # Errors
    /// A name that no parameter can have, or an option that is not a setting: what PostgreSQL says to it.
    pub fn read<'a>(
        parameters: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<Self, ErrorResponse> {
        let mut read = Self::default();
        for (name, value) in parameters {
            match name {
                b"options" => read.read_options(value)?,
                _ => read.insert(name, value)?,
            }
        }
        Ok(read)
    }

    fn read_options(&mut self, options: &[u8]) -> Result<(), ErrorResponse> {
        let arguments = split_options(options);
        let mut rest = arguments.iter().map(|(_, argument)| &**argument);
        while let Some(argument) = rest.next() {
            let setting = match argument {
                b"-c" => rest.next().unwrap_or_default(),
                [b'-', b'c', setting @ ..] | [b'-', b'-', setting @ ..] => setting,
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
            self.insert(&name, value)?;
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
        StartupSettings::read(
            parameters
                .iter()
                .map(|(name, value)| (name.as_bytes(), value.as_bytes())),
        )
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
